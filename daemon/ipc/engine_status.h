// SPDX-License-Identifier: Apache-2.0
// What an engine tells of itself (Verb::Status): u64 each, in this order. The list may grow at its end, and
// an engine may be older or newer than the vtpmd that has taken it over: what is missing is 0, what is beyond
// is ignored.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <array>

namespace vtpm::ipc {

struct EngineStatus {
  std::uint64_t sequence = 0;   // of the last commit of a durable instance; 0: ephemeral
  std::uint64_t commands = 0;   // of tenants, answered
  std::uint64_t busy_us = 0;    // time that the TPM took for them
  std::uint64_t throttled = 0;  // commands that waited because of a quota
  std::uint64_t spaces = 0;     // open files of managed nodes
  std::uint64_t swaps = 0;      // contexts saved to make room
  std::uint64_t evictions = 0;  // sessions taken from their owners
  std::uint64_t nv_bytes = 0;   // of the permanent state
  std::uint64_t cancelled = 0;  // commands that a signal or a close has cancelled while they ran

  static constexpr std::size_t kMaxSize = 512;  // bytes, of all versions to come
};

inline Bytes encode(const EngineStatus& s) {
  Bytes out;
  for (const auto value : {s.sequence, s.commands, s.busy_us, s.throttled, s.spaces, s.swaps, s.evictions,
                           s.nv_bytes, s.cancelled})
    put_be(out, value);
  return out;
}

// No list of u64: Malformed.
inline Result<EngineStatus> decode_status(BytesView bytes) {
  constexpr std::size_t kField = sizeof(std::uint64_t);
  if (bytes.size() % kField != 0 || bytes.size() > EngineStatus::kMaxSize)
    return Error(ErrorCode::Malformed, "engine status: of another size");
  EngineStatus s;
  std::size_t at = 0;
  for (auto* field : {&s.sequence, &s.commands, &s.busy_us, &s.throttled, &s.spaces, &s.swaps, &s.evictions,
                      &s.nv_bytes, &s.cancelled}) {
    if (at == bytes.size()) break;
    *field = get_be<std::uint64_t>(bytes, at);
    at += kField;
  }
  return s;
}

}  // namespace vtpm::ipc
