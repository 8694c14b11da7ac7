// SPDX-License-Identifier: Apache-2.0
// The daemon: its parts, put together; start, run, orderly stop.
#pragma once

#include "daemon/supervisor/options.h"

#include <vtpm/os/result.h>

namespace vtpm::supervisor {

// Starts everything, tells the service manager, serves until SIGTERM or SIGINT, stops in order. Returns after
// the last instance is destroyed and host.stop is in the log; an error is a start that was refused.
Result<> run(const Options& options);

}  // namespace vtpm::supervisor
