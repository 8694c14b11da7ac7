// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

namespace vtpm::cli {
namespace {

// The instances of an answer, which is an array or has one as its member "instances".
const json::Value* instances_of(const json::Value& answer) {
  if (answer.is_array()) return &answer;
  if (!answer.is_object()) return nullptr;
  const auto member = answer.find("instances");
  return member != answer.end() && member->is_array() ? &*member : nullptr;
}

bool is_durable(const json::Value& instance) {
  const auto member = instance.find("durable");
  return member != instance.end() && *member == true;
}

Result<int> list(const Context& context) {
  VTPM_TRY(const auto body, context.client().call("GET", "/v1/instances"));
  VTPM_TRY(const auto answer, parse_answer(body));
  if (context.json) {
    VTPM_TRY_VOID(print_json(answer));
    return kDone;
  }
  const auto* instances = instances_of(answer);
  if (instances == nullptr) return Error(ErrorCode::Malformed, "vtpmd's answer is not a list of instances");
  Table table({"ID", "NAME", "STATE", "DURABLE", "OWNER", "CREATED (UTC)", "CONTAINER"});
  for (const auto& instance : *instances)
    table.add({shown(instance, "id"), shown(instance, "name"), shown(instance, "state"),
               is_durable(instance) ? "yes" : "-", shown(instance, "owner_uid"),
               shown_time(instance, "created"), shown(instance, "container")});
  VTPM_TRY_VOID(print(table.text()));
  return kDone;
}

}  // namespace

void add_list(CLI::App& app, Context& context) {
  add_verb(app, context, "list", "The TPMs that you may see", [&context] { return list(context); });
}

}  // namespace vtpm::cli
