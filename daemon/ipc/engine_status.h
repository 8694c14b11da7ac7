// SPDX-License-Identifier: Apache-2.0
// What an engine tells of itself (Verb::Status): a list of u64 (u64_list.h), in the order of kStatusFields.
#pragma once

#include "daemon/ipc/u64_list.h"

#include <array>

namespace vtpm::ipc {

struct EngineStatus {
  std::uint64_t sequence = 0;   // of the last commit of a durable instance; 0: ephemeral
  std::uint64_t commands = 0;   // of tenants, answered
  std::uint64_t busy_us = 0;    // CPU time that they cost
  std::uint64_t throttled = 0;  // commands that waited because of a quota
  std::uint64_t spaces = 0;     // open files of managed nodes
  std::uint64_t swaps = 0;      // contexts saved to make room
  std::uint64_t evictions = 0;  // sessions taken from their owners
  std::uint64_t nv_bytes = 0;   // of the permanent state
  std::uint64_t cancelled = 0;  // commands that a signal or a close has cancelled while they ran
};

inline constexpr std::array kStatusFields = {
    &EngineStatus::sequence,  &EngineStatus::commands, &EngineStatus::busy_us,
    &EngineStatus::throttled, &EngineStatus::spaces,   &EngineStatus::swaps,
    &EngineStatus::evictions, &EngineStatus::nv_bytes, &EngineStatus::cancelled,
};

inline Bytes encode(const EngineStatus& status) {
  return encode_u64_list(status, kStatusFields);
}

// No list of u64: Malformed.
inline Result<EngineStatus> decode_status(BytesView bytes) {
  return decode_u64_list<EngineStatus>(bytes, kStatusFields, "engine status");
}

}  // namespace vtpm::ipc
