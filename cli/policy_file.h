// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vtpm/evidence/policy.h>

namespace vtpm::cli {

// A policy from its file. Missing: NotFound; not a policy: Configuration, with the member's name.
Result<evidence::Policy> read_policy(const std::string& path);

}  // namespace vtpm::cli
