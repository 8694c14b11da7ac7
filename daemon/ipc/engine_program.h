// SPDX-License-Identifier: Apache-2.0
// How the vtpm-engine program is executed: with no environment, descriptor 3 a socket, standard error the
// log, and no other descriptor. For the units of this folder.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <string>

namespace vtpm::ipc {

// As the zygote, a child of this process. Its pidfd; the caller reaps it. Not executable: Configuration, with
// the path.
Result<UniqueFd> execute_zygote(const std::string& path, int control, int log);
// As the keeper: nobody's child, in a session of its own, so that neither a signal to our process group nor
// our end reaches it. Errors as execute_zygote.
Result<> execute_keeper(const std::string& path, int listener, int log);

}  // namespace vtpm::ipc
