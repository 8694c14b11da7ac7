// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/socket_node.h>

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

constexpr std::chrono::seconds kDeadline{30};

struct Options {
  std::string id;
  std::string path;
};

Result<> forget(const Context& context, const std::string& id, const std::string& path) {
  auto forgotten =
      control::request(context.runtime_dir, control::DetachRequest{id, path}, {}, after(kDeadline));
  if (!forgotten) return std::move(forgotten).error();
  return {};
}

// A node that somebody has removed already only needs to be forgotten.
Result<> remove(const PlacedNode& node) {
  auto removed = remove_placed(node);
  if (!removed && removed.error().kind() != ErrorCode::NotFound) return removed;
  return {};
}

// Any file could be somebody else's socket: vtpmd must know it, and ends it, first. A mount tells whose it
// is, and to remove it is what ends it.
Result<> detach_one(const Context& context, const std::string& id, const PlacedNode& node) {
  const bool socket = node.backend == control::Backend::Socket;
  if (!socket) VTPM_TRY_VOID(remove(node));
  VTPM_TRY_VOID(forget(context, id, node.path));
  if (socket) VTPM_TRY_VOID(remove(node));
  return {};
}

Result<int> detach(const Context& context, const Options& options) {
  std::vector<PlacedNode> nodes;
  if (options.path.empty()) {
    VTPM_TRY(nodes, placed_nodes(context, options.id));
  } else {
    VTPM_TRY(auto path, absolute_path(options.path));
    const auto backend = device::is_socket(path) ? control::Backend::Socket : control::Backend::Fuse;
    nodes.push_back({std::move(path), backend});
  }
  if (nodes.empty()) return Error(ErrorCode::NotFound, options.id + " has no node that `attach` made");
  json::Value paths = json::Value::array();
  for (const auto& node : nodes) {
    VTPM_TRY_VOID(detach_one(context, options.id, node));
    paths.push_back(node.path);
  }
  if (context.json) {
    VTPM_TRY_VOID(print_json({{"detached", paths}}));
  }
  return kDone;
}

}  // namespace

void add_detach(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "detach", "Remove the nodes that attach made",
                        [&context, options] { return detach(context, *options); });
  verb->add_option("id", options->id, "The TPM's id, the beginning of it, or its name")->required();
  verb->add_option("--path", options->path, "Only this node");
}

}  // namespace vtpm::cli
