// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

Result<int> inspect(const Context& context, const std::string& id) {
  VTPM_TRY(const auto body, context.client().call("GET", instance_target(id)));
  VTPM_TRY(auto instance, parse_answer(body));
  if (!context.json && instance.is_object()) {
    if (instance.contains("created")) instance["created"] = shown_time(instance, "created") + " UTC";
    instance.erase("ek_public");  // long, and for programs
    instance.erase("ak_public");
  }
  VTPM_TRY_VOID(context.json ? print_json(instance) : print_members(instance));
  return kDone;
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  const auto id = std::make_shared<std::string>();
  auto* verb = add_verb(app, context, "inspect", "All about one TPM",
                        [&context, id] { return inspect(context, *id); });
  verb->add_option("id", *id, "Its id, the beginning of it, or its name")->required();
}

}  // namespace vtpm::cli
