// SPDX-License-Identifier: Apache-2.0
// What a TPM's tenants may use (Verb::Limits): u64 each, in the order of kLimitFields. vtpmd decides, the
// engine keeps to it. The list may grow at its end, and the two may be of different versions: what is missing
// is as it is by default, what is beyond is ignored.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <array>
#include <string_view>

namespace vtpm::ipc {

// The values here are an engine's before it is told others: what the resource manager can do, and no rates.
struct EngineLimits {
  std::uint64_t spaces = 256;            // open files of managed nodes at a time
  std::uint64_t objects_per_space = 32;  // transient objects
  std::uint64_t sessions_per_space = 64;
  std::uint64_t commands_per_second = 0;  // of all tenants; 0: unlimited
  std::uint64_t command_burst = 1;        // commands at once after a rest
  std::uint64_t busy_us_per_second = 0;   // time of the TPM, us in each second; 0: unlimited
  std::uint64_t busy_burst_us = 1;        // us at once after a rest
  std::uint64_t nv_bytes = 0;             // of the permanent state; 0: what libtpms has room for

  static constexpr std::size_t kFields = 8;
  static constexpr std::size_t kMaxSize = 512;  // bytes, of all versions to come
  bool operator==(const EngineLimits&) const = default;
};

// A limit by its name: what the API, the options and the frame have in common. Inclusive ranges.
struct LimitField {
  std::string_view name;
  std::uint64_t EngineLimits::*value;
  std::uint64_t least;
  std::uint64_t most;
  bool zero_is_unlimited;
};
// The first three are bounded by what an engine's memory can hold, the others by what their arithmetic can.
inline constexpr std::array<LimitField, EngineLimits::kFields> kLimitFields = {{
    {"spaces", &EngineLimits::spaces, 1, 1024, false},
    {"objects_per_space", &EngineLimits::objects_per_space, 1, 64, false},
    {"sessions_per_space", &EngineLimits::sessions_per_space, 1, 64, false},
    {"commands_per_second", &EngineLimits::commands_per_second, 0, 1'000'000, true},
    {"command_burst", &EngineLimits::command_burst, 1, 1'000'000'000, false},
    {"busy_us_per_second", &EngineLimits::busy_us_per_second, 0, 1'000'000, true},
    {"busy_burst_us", &EngineLimits::busy_burst_us, 1, 3'600'000'000, false},
    {"nv_bytes", &EngineLimits::nv_bytes, 0, 1 << 20, true},
}};

inline Bytes encode(const EngineLimits& limits) {
  Bytes out;
  for (const LimitField& field : kLimitFields)
    put_be(out, limits.*field.value);
  return out;
}

// No list of u64, or a value out of its range: Malformed.
inline Result<EngineLimits> decode_limits(BytesView bytes) {
  constexpr std::size_t kField = sizeof(std::uint64_t);
  if (bytes.size() % kField != 0 || bytes.size() > EngineLimits::kMaxSize)
    return Error(ErrorCode::Malformed, "engine limits: of another size");
  EngineLimits limits;
  std::size_t at = 0;
  for (const LimitField& field : kLimitFields) {
    if (at == bytes.size()) break;
    const auto value = get_be<std::uint64_t>(bytes, at);
    at += kField;
    if (value < field.least || value > field.most)
      return Error(ErrorCode::Malformed,
                   "engine limits: " + std::string(field.name) + " is out of its range");
    limits.*field.value = value;
  }
  return limits;
}

}  // namespace vtpm::ipc
