// SPDX-License-Identifier: Apache-2.0
#include "cli/nodes.h"

#include "cli/output.h"

#include <filesystem>

namespace vtpm::cli {

Result<std::vector<std::string>> node_paths(const Context& context, const std::string& id) {
  VTPM_TRY(const auto body, context.client().call("GET", instance_target(id)));
  VTPM_TRY(const auto instance, parse_answer(body));
  std::vector<std::string> paths;
  const auto nodes = instance.is_object() ? instance.find("nodes") : instance.end();
  if (nodes == instance.end() || !nodes->is_array()) return paths;
  for (const auto& node : *nodes) {
    const std::string path = shown(node, "path");
    if (path.front() == '/') paths.push_back(path);
  }
  return paths;
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
