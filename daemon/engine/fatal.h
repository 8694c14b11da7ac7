// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/engine/log.h"
#include "daemon/ipc/frame.h"

namespace vtpm::engine {

// A broken invariant: the engine ends at once with a line in the log. Not abort(3): the signal that it sends
// is a system call that the jail does not have.
[[noreturn]] inline void fatal(std::string_view why) {
  log_line("internal error: " + std::string(why));
  ::_exit(ipc::kExitBug);
}

}  // namespace vtpm::engine
