// SPDX-License-Identifier: Apache-2.0
// Where a node is, as its directory and its name there.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <string>

namespace vtpm::device {

struct SplitPath {
  std::string directory;
  std::string name;
};
// Malformed: it names no file.
Result<SplitPath> split(const std::string& path);

// O_PATH.
Result<UniqueFd> open_directory(const std::string& path);

}  // namespace vtpm::device
