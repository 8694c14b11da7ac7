// SPDX-License-Identifier: Apache-2.0
// One engine: a blocking loop over its control socket and its device nodes, for the rest of the process'
// life.
#pragma once

#include <vtpm/os/unique_fd.h>

namespace vtpm::engine {

// Serves until the control socket ends: then TPM2_Shutdown(CLEAR) and an exit status (ipc::kExit*). A frame
// that is malformed or not permitted ends the engine, too. Call in a jailed process that never forks again.
int run_engine(UniqueFd control);

}  // namespace vtpm::engine
