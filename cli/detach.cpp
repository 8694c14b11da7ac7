// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/socket_node.h>

#include <CLI/CLI.hpp>

#include <iostream>
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

// vtpmd serves no such node: its TPM is gone or has failed, or it never had one.
bool is_not_served(const Result<>& forgotten) {
  return !forgotten &&
         (forgotten.error().kind() == ErrorCode::NotFound || forgotten.error().kind() == ErrorCode::Conflict);
}

// What was removed was nobody's any more, or another TPM's.
Result<> say_it_was_left_over(const PlacedNode& node, const Error& why) {
  std::cerr << "vtpmctl: detach: " << node.path << " is removed, although " << why.context << "\n";
  return {};
}

// A mount tells whose it is, and to remove it is what ends it. One that somebody has removed already only
// needs to be forgotten, and the mount of a TPM that is gone only to be removed.
Result<> detach_mount(const Context& context, const std::string& id, const PlacedNode& node) {
  auto removed = remove_placed(node);
  if (!removed && removed.error().kind() != ErrorCode::NotFound) return removed;
  auto forgotten = forget(context, id, node.path);
  if (removed && is_not_served(forgotten)) return say_it_was_left_over(node, forgotten.error());
  return forgotten;
}

// Any file could be somebody else's socket: vtpmd must know it, and ends it, first. Or nobody listens on it
// any more.
Result<> detach_socket(const Context& context, const std::string& id, const PlacedNode& node) {
  auto forgotten = forget(context, id, node.path);
  if (!forgotten && !is_not_served(forgotten)) return forgotten;
  auto removed = remove_placed(node);
  if (removed) return forgotten ? forgotten : say_it_was_left_over(node, forgotten.error());
  const ErrorCode kind = removed.error().kind();
  if (kind == ErrorCode::NotFound) return forgotten;
  return kind == ErrorCode::Conflict && !forgotten ? forgotten : removed;
}

Result<> detach_one(const Context& context, const std::string& id, const PlacedNode& node) {
  return node.backend == control::Backend::Socket ? detach_socket(context, id, node)
                                                  : detach_mount(context, id, node);
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
  if (nodes.empty())
    return Error(ErrorCode::NotFound,
                 options.id + " has no node that `attach` made; --path names one that is left over");
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
