// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_checks.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <algorithm>

namespace vtpm::cli {
namespace {

std::string_view to_string(Health health) noexcept {
  switch (health) {
    case Health::Ok:
      return "ok";
    case Health::Warn:
      return "warn";
    case Health::Fail:
      return "fail";
  }
  return "fail";
}

Result<> print_people(const std::vector<Finding>& findings) {
  std::string out;
  for (const auto& finding : findings) {
    const std::string word(to_string(finding.health));
    out += word + std::string(6 - word.size(), ' ') + finding.what + "\n";
    if (!finding.advice.empty()) out += "      -> " + finding.advice + "\n";
  }
  return print(out);
}

Result<> print_programs(const std::vector<Finding>& findings) {
  json::Value list = json::Value::array();
  for (const auto& finding : findings)
    list.push_back(
        {{"status", to_string(finding.health)}, {"what", finding.what}, {"advice", finding.advice}});
  return print_json({{"findings", list}});
}

Result<int> doctor(const Context& context) {
  const auto findings = examine(context);
  VTPM_TRY_VOID(context.json ? print_programs(findings) : print_people(findings));
  const bool failed = std::any_of(findings.begin(), findings.end(),
                                  [](const Finding& f) { return f.health == Health::Fail; });
  return failed ? kFailed : kDone;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  add_verb(app, context, "doctor", "Whether this machine can give TPMs to containers, and what to do if not",
           [&context] { return doctor(context); });
}

}  // namespace vtpm::cli
