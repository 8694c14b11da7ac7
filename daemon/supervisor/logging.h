// SPDX-License-Identifier: Apache-2.0
// The daemon's log: one line each on standard error.
#pragma once

#include <string_view>

namespace vtpm::supervisor {

// With the numbers of syslog(3), which the journal reads as a "<N>" prefix.
enum class LogLevel { Error = 3, Warning = 4, Info = 6 };

// Writes one line. Control characters in it (names come from peers) are shown as '?'. Thread-safe.
void log_line(LogLevel level, std::string_view text);

}  // namespace vtpm::supervisor
