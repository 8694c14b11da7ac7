// SPDX-License-Identifier: Apache-2.0
// The zygote: forks engines on request and reports how they ended. libtpms is loaded in it and never
// initialised.
#pragma once

#include "daemon/engine/jail.h"

#include <vtpm/os/unique_fd.h>

namespace vtpm::engine {

// What engines are jailed with.
struct EngineJail {
  const SyscallFilter& filter;
  JailParts parts;
};

// Serves until the control socket ends; returns an exit status (ipc::kExit*). In a forked engine it returns
// that engine's exit status, when the engine ends. Call in a process with a single thread, jailed by
// enter_zygote_jail; `children` is a signalfd for SIGCHLD.
int run_zygote(UniqueFd control, UniqueFd children, const EngineJail& jail);

}  // namespace vtpm::engine
