// SPDX-License-Identifier: Apache-2.0
// Messages of the zygote and the engines: one line each on standard error, which vtpmd gave them.
#pragma once

#include "daemon/engine/outer_pid.h"

#include <unistd.h>

#include <string>
#include <string_view>

namespace vtpm::engine {

// One write(2), so that lines of many engines do not mix. What cannot be written is lost.
inline void log_line(std::string_view text) {
  const std::string line =
      "vtpm-engine[" + std::to_string(OuterPid::current()) + "]: " + std::string(text) + "\n";
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace vtpm::engine
