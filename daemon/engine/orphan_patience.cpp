// SPDX-License-Identifier: Apache-2.0
// A file of its own: a program with less patience, for tests, defines its own.
#include "daemon/engine/keeper.h"

namespace vtpm::engine {

const std::chrono::milliseconds kOrphanPatience = std::chrono::seconds(30);

}  // namespace vtpm::engine
