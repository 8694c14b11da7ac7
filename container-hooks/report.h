// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace vtpm::hook {

// Tells the operator: `text` (whole lines) goes to standard error. crun gives its hooks /dev/null there: then
// it goes to the runtime's own standard error and to syslog instead.
void report(const std::string& text);

}  // namespace vtpm::hook
