// SPDX-License-Identifier: Apache-2.0
// The daemon: its parts, put together; start, run, orderly stop.
#pragma once

#include "daemon/supervisor/options.h"

#include <vtpm/os/result.h>

namespace vtpm::supervisor {

// Starts everything, takes back what an earlier vtpmd left running, tells the service manager, serves until
// SIGTERM or SIGINT, stops in order. Returns after the last instance is destroyed and host.stop is in the
// log; at SIGUSR2 the instances are left to the next vtpmd instead. An error is a start that was refused.
Result<> run(const Options& options);

}  // namespace vtpm::supervisor
