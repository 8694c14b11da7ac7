// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/context.h"

#include <vector>

namespace vtpm::cli {

enum class Health { Ok, Warn, Fail };

// One thing that was looked at, and what to do about it.
struct Finding {
  Health health;
  std::string what;
  std::string advice;
};

// Looks at the kernel, the devices, vtpmd and the container runtimes. Changes nothing.
std::vector<Finding> examine(const Context& context);

}  // namespace vtpm::cli
