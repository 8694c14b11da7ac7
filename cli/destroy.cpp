// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>

namespace vtpm::cli {
namespace {

// What is left of the instance's nodes answers nothing any more; who may not unmount them is told.
void remove_nodes(const std::vector<PlacedNode>& nodes) {
  for (const auto& node : nodes) {
    const auto removed = remove_placed(node);
    if (removed || removed.error().kind() == ErrorCode::NotFound) continue;
    std::cerr << "vtpmctl: destroy: the dead node " << node.path << " is left: " << removed.error().context
              << "\n  "
              << (node.backend == control::Backend::Socket ? "remove it: rm " : "unmount it as root: umount ")
              << node.path << "\n";
  }
}

// Of a durable TPM more than a process is gone: what, is said.
Result<> tell_removed(const json::Value& instance) {
  if (!instance.is_object() || instance.value("durable", json::Value()) != true) return {};
  std::string text =
      "removed the durable TPM " + shown(instance, "id") + " (" + shown(instance, "name") + "):";
  const json::Value storage = instance.value("storage", json::Value());
  const json::Value slots = storage.is_object() ? storage.value("slots", json::Value()) : json::Value();
  if (slots.is_array())
    for (const auto& slot : slots)
      text += " " + shown(slot);
  return print(text + "\n");
}

Result<> destroy_one(const Context& context, const std::string& id) {
  VTPM_TRY(const auto nodes, placed_nodes(context, id));
  VTPM_TRY(const auto body, context.client().call("DELETE", instance_target(id)));
  remove_nodes(nodes);
  VTPM_TRY(const auto instance, parse_answer(body));
  if (!context.json) VTPM_TRY_VOID(tell_removed(instance));
  return {};
}

// Each is tried; the first error decides the exit status.
Result<int> destroy(const Context& context, const std::vector<std::string>& ids) {
  json::Value destroyed = json::Value::array();
  int status = kDone;
  for (const auto& id : ids) {
    if (const auto done = destroy_one(context, id); done) {
      destroyed.push_back(id);
    } else {
      print_error("destroy", done.error().within(id));
      if (status == kDone) status = exit_status(done.error().kind());
    }
  }
  if (context.json) {
    VTPM_TRY_VOID(print_json({{"destroyed", destroyed}}));
  }
  return status;
}

}  // namespace

void add_destroy(CLI::App& app, Context& context) {
  const auto ids = std::make_shared<std::vector<std::string>>();
  auto* verb = add_verb(app, context, "destroy", "Destroy TPMs with all their keys",
                        [&context, ids] { return destroy(context, *ids); });
  verb->add_option("id", *ids, "Ids, beginnings of ids, or names")->required();
}

}  // namespace vtpm::cli
