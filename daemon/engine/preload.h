// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vtpm/os/result.h>

namespace vtpm::engine {

// Loads what engines will use of OpenSSL while files may still be opened: configuration, providers and
// algorithms. Draws no random bytes: the generator's first seed must be each engine's own. Configuration:
// OpenSSL lacks an algorithm that libtpms needs.
Result<> preload_crypto();

}  // namespace vtpm::engine
