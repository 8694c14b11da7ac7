// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vtpm/os/result.h>

namespace vtpm::engine {

// Landlock (landlock(7)) for the rest of the life of this process and its children: opens, makes, executes
// and removes no file; where the kernel knows of it, binds and connects no TCP port (ABI 4), reaches no
// abstract socket and signals nobody outside (ABI 6). Descriptors that it has already are not affected. Needs
// no_new_privs. Returns the kernel's ABI; Unsupported: it has none.
Result<int> enter_landlock();

}  // namespace vtpm::engine
