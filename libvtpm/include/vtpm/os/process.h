// SPDX-License-Identifier: Apache-2.0
// Processes by pidfd.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

namespace vtpm {

// A pidfd of the process `pid` as numbered in our pid namespace. No such process: NotFound.
Result<UniqueFd> open_pidfd(pid_t pid);
// The pid of the process behind a pidfd, in our pid namespace. Not a pidfd: Malformed. Reaped already:
// NotFound.
Result<pid_t> pid_of_pidfd(int pidfd);
// The real uid of the process behind a pidfd, in our user namespace. Errors as pid_of_pidfd.
Result<uid_t> uid_of_pidfd(int pidfd);
// Whether the process behind a pidfd has ended. Does not block.
bool has_ended(int pidfd) noexcept;
// Sends a signal through a pidfd. A process that has ended already is not an error.
Result<> signal_process(int pidfd, int signal);

}  // namespace vtpm
