// SPDX-License-Identifier: Apache-2.0
#include "device/node_path.h"

#include <fcntl.h>

#include <cerrno>

namespace vtpm::device {

Result<SplitPath> split(const std::string& path) {
  const auto slash = path.rfind('/');
  SplitPath parts{slash == std::string::npos ? "." : path.substr(0, slash + 1),
                  slash == std::string::npos ? path : path.substr(slash + 1)};
  if (parts.name.empty() || parts.name == "." || parts.name == "..")
    return Error(ErrorCode::Malformed, "'" + path + "' does not name a file");
  return parts;
}

Result<UniqueFd> open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_error(path, errno);
  return fd;
}

}  // namespace vtpm::device
