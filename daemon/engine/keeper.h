// SPDX-License-Identifier: Apache-2.0
// The keeper: holds duplicates of the descriptors by which vtpmd supervises its engines, so that nothing
// closes when vtpmd dies, and gives them to the next vtpmd.
#pragma once

#include <vtpm/os/unique_fd.h>

#include <chrono>
#include <cstddef>

namespace vtpm::engine {

// How long the nodes of an engine that ended while there was no vtpmd wait for the next one: then their users
// get ENOTCONN, and who connects to a socket is refused.
extern const std::chrono::milliseconds kOrphanPatience;

// Serves one connection at a time on `listener`, of its own user alone (SO_PEERCRED). Returns an exit status
// (ipc::kExit*) when it is told to, or when it holds nothing and nobody is connected any more. While nobody
// is connected it watches the engines: of one that has ended it keeps the pidfds, and for `patience` the
// nodes; sockets are then shut down and stay. `descriptors`: how many this process may have; nodes get no
// more than three quarters of them.
int run_keeper(UniqueFd listener, std::size_t descriptors,
               std::chrono::milliseconds patience = kOrphanPatience);

}  // namespace vtpm::engine
