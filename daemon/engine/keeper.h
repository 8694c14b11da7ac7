// SPDX-License-Identifier: Apache-2.0
// The keeper: holds duplicates of the descriptors by which vtpmd supervises its engines, so that nothing
// closes when vtpmd dies, and gives them to the next vtpmd.
#pragma once

#include <vtpm/os/unique_fd.h>

#include <cstddef>

namespace vtpm::engine {

// Serves one connection at a time on `listener`, of its own user alone (SO_PEERCRED). Returns an exit status
// (ipc::kExit*) when it is told to, or when it holds nothing and nobody is connected any more. While nobody
// is connected it watches the engines: of one that has ended it keeps the pidfds alone, so that tenants are
// told and do not wait for a server that never comes. `descriptors`: how many this process may have.
int run_keeper(UniqueFd listener, std::size_t descriptors);

}  // namespace vtpm::engine
