// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"

#include "cli/output.h"

#include <vtpm/device/fuse_node.h>
#include <vtpm/device/socket_node.h>

#include <filesystem>

namespace vtpm::cli {

Result<std::vector<PlacedNode>> placed_nodes(const Context& context, const std::string& id) {
  VTPM_TRY(const auto body, context.client().call("GET", instance_target(id)));
  VTPM_TRY(const auto instance, parse_answer(body));
  std::vector<PlacedNode> placed;
  const auto nodes = instance.is_object() ? instance.find("nodes") : instance.end();
  if (nodes == instance.end() || !nodes->is_array()) return placed;
  for (const auto& node : *nodes) {
    const std::string path = shown(node, "path");
    VTPM_TRY(const auto backend, control::backend_from(shown(node, "backend")));
    if (path.front() == '/') placed.push_back({path, backend});
  }
  return placed;
}

Result<> remove_placed(const PlacedNode& node) {
  return node.backend == control::Backend::Socket ? device::remove_socket_node(node.path)
                                                  : device::remove_node(node.path);
}

Result<std::string> absolute_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path given(path);
  if (!given.has_filename()) return Error(ErrorCode::Malformed, "'" + path + "' does not name a file");
  const fs::path directory = fs::canonical(given.has_parent_path() ? given.parent_path() : ".", error);
  if (error) return errno_error(given.parent_path().string(), error.value());
  return (directory / given.filename()).string();
}

}  // namespace vtpm::cli
