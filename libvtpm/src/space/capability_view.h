// SPDX-License-Identifier: Apache-2.0
// TPM2_GetCapability as a space sees it: its own transient objects and sessions.
//
// The TPM answers first, so that it alone decides what is an error, and what depends on the space is then
// written over. Only without sessions: the response HMAC of an audit or encrypt session covers the answer,
// and whoever asks through one gets the TPM's own view, counts and real handles of all spaces included (they
// let nobody reach anything).
#pragma once

#include "space/command.h"

#include <vector>

namespace vtpm::space {

struct CapabilityView {
  std::vector<std::uint32_t> objects;          // virtual handles, ascending
  std::vector<std::uint32_t> loaded_sessions;  // in the TPM or swapped out by us, by slot
  std::vector<std::uint32_t> saved_sessions;   // saved by the client, and orphans, by slot
  // How many more are possible.
  std::uint32_t objects_available;
  std::uint32_t loaded_available;
  std::uint32_t active_available;
};

// `response`: the TPM's successful one to `command`; replaced.
void write_view(const CapabilityView& view, const Command& command, Bytes& response);
// Whether the space has a view of its own of what is asked for.
bool has_view(const Command& command) noexcept;

}  // namespace vtpm::space
