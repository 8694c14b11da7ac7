// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/context.h"

#include <vtpm/control/attach.h>

#include <vector>

namespace vtpm::cli {

// A node that `attach` made.
struct PlacedNode {
  std::string path;
  control::Backend backend;
};

// Those of an instance, as vtpmd remembers them. Nodes inside containers ("container:/dev/vtpm") are left
// out: they go with their container.
Result<std::vector<PlacedNode>> placed_nodes(const Context& context, const std::string& id);

// Removes it from its path. Not there: NotFound. Something else, or a socket that still has a listener:
// Conflict.
Result<> remove_placed(const PlacedNode& node);

// The path as seen from the root directory, without "." and ".."; the last component is not followed.
Result<std::string> absolute_path(const std::string& path);

}  // namespace vtpm::cli
