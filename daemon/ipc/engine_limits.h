// SPDX-License-Identifier: Apache-2.0
// What a TPM's tenants may use (Verb::Limits): a list of u64 (u64_list.h), in the order of kLimitFields.
// vtpmd decides, the engine keeps to it.
#pragma once

#include "daemon/ipc/u64_list.h"

#include <array>

namespace vtpm::ipc {

// The values here are an engine's before it is told others: what the resource manager can do, and no rates.
struct EngineLimits {
  std::uint64_t spaces = 256;            // open files of managed nodes at a time
  std::uint64_t objects_per_space = 32;  // transient objects
  std::uint64_t sessions_per_space = 64;
  std::uint64_t commands_per_second = 0;  // of all tenants; 0: unlimited
  std::uint64_t command_burst = 1;        // commands at once after a rest
  std::uint64_t busy_us_per_second = 0;   // CPU time, us in each second; 0: unlimited
  std::uint64_t busy_burst_us = 1;        // us at once after a rest
  std::uint64_t nv_bytes = 0;             // of the permanent state; 0: what libtpms has room for

  static constexpr std::size_t kFields = 8;
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

// Their values, as a list.
inline constexpr auto kLimitValues = [] {
  std::array<std::uint64_t EngineLimits::*, EngineLimits::kFields> values{};
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = kLimitFields[i].value;
  return values;
}();

inline Bytes encode(const EngineLimits& limits) {
  return encode_u64_list(limits, kLimitValues);
}

// No list of u64, or a value out of its range: Malformed.
inline Result<EngineLimits> decode_limits(BytesView bytes) {
  VTPM_TRY(const EngineLimits limits, decode_u64_list<EngineLimits>(bytes, kLimitValues, "engine limits"));
  for (const LimitField& field : kLimitFields)
    if (limits.*field.value < field.least || limits.*field.value > field.most)
      return Error(ErrorCode::Malformed,
                   "engine limits: " + std::string(field.name) + " is out of its range");
  return limits;
}

}  // namespace vtpm::ipc
