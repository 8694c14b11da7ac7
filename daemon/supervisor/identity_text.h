// SPDX-License-Identifier: Apache-2.0
// An instance's identity as the database keeps it (FORMATS.md: "The supervisor's database").
#pragma once

#include "daemon/identity/identity.h"

#include <string>
#include <string_view>

namespace vtpm::supervisor {

std::string identity_text(const identity::Identity& identity);
// The Names follow from the public areas. Malformed or Corrupt otherwise.
Result<identity::Identity> parse_identity(std::string_view text);

}  // namespace vtpm::supervisor
