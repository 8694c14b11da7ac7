// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/fuse_node.h>

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

constexpr std::chrono::seconds kDeadline{30};

struct Options {
  std::string id;
  std::string path;
};

// A node that somebody has unmounted already only needs to be forgotten.
Result<> detach_one(const Context& context, const std::string& id, const std::string& path) {
  auto removed = device::remove_node(path);
  if (!removed && removed.error().kind() != ErrorCode::NotFound) return removed;
  auto forgotten =
      control::request(context.runtime_dir, control::DetachRequest{id, path}, {}, after(kDeadline));
  if (!forgotten) return std::move(forgotten).error();
  return {};
}

Result<int> detach(const Context& context, const Options& options) {
  std::vector<std::string> paths;
  if (options.path.empty()) {
    VTPM_TRY(paths, node_paths(context, options.id));
  } else {
    VTPM_TRY(auto path, absolute_path(options.path));
    paths.push_back(std::move(path));
  }
  if (paths.empty()) return Error(ErrorCode::NotFound, options.id + " has no node that `attach` made");
  for (const auto& path : paths)
    VTPM_TRY_VOID(detach_one(context, options.id, path));
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
