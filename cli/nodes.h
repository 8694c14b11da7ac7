// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/context.h"

#include <vector>

namespace vtpm::cli {

// The paths of the nodes that were made for an instance with `attach`, as vtpmd remembers them. Nodes inside
// containers ("container:/dev/vtpm") are left out: they go with their container.
Result<std::vector<std::string>> node_paths(const Context& context, const std::string& id);

// The path as seen from the root directory, without "." and ".."; the last component is not followed.
Result<std::string> absolute_path(const std::string& path);

}  // namespace vtpm::cli
