// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

// The slot files on lines of their own; an ephemeral TPM has none.
void show_storage(json::Value& instance) {
  const json::Value storage = instance.value("storage", json::Value());
  instance.erase("storage");
  if (!storage.is_object()) return;
  instance["sequence"] = storage.value("sequence", json::Value());
  const json::Value slots = storage.value("slots", json::Value());
  if (!slots.is_array() || slots.size() != 2) return;
  instance["slot_a"] = slots[0];
  instance["slot_b"] = slots[1];
}

// The members of a member on lines of their own; one line with "-" where it is null.
void show_members(json::Value& instance, const char* name, const std::string& prefix) {
  const json::Value members = instance.value(name, json::Value());
  if (!members.is_object()) return;
  instance.erase(name);
  for (const auto& [member, value] : members.items())
    instance[prefix + member] = value;
}

Result<int> inspect(const Context& context, const std::string& id) {
  VTPM_TRY(const auto body, context.client().call("GET", instance_target(id)));
  VTPM_TRY(auto instance, parse_answer(body));
  if (!context.json && instance.is_object()) {
    if (instance.contains("created")) instance["created"] = shown_time(instance, "created") + " UTC";
    instance.erase("ek_public");  // long, and for programs
    instance.erase("ak_public");
    show_storage(instance);
    show_members(instance, "limits", "limit_");
    show_members(instance, "use", "used_");
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
