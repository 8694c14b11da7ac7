// SPDX-License-Identifier: Apache-2.0
// Handles (TCG TPM 2.0 Library Part 2, 7): the first byte is the type, the rest an index.
#pragma once

#include <cstdint>

namespace vtpm::space {

// What a client names a transient object by, and what the TPM does. Nowhere one can stand for the other.
enum class VirtualHandle : std::uint32_t {};
enum class RealHandle : std::uint32_t {};

// A session's index among the TPM's active ones. HMAC and policy sessions share the indices: 0x02000001 and
// 0x03000001 cannot both be.
enum class SessionSlot : std::uint32_t {};

inline constexpr std::uint32_t kIndexMask = 0x00ffffff;
inline constexpr std::uint32_t kHmacSessionFirst = 0x02000000;
inline constexpr std::uint32_t kPolicySessionFirst = 0x03000000;
inline constexpr std::uint32_t kTransientFirst = 0x80000000;
// Of the right type, and beyond the last handle of any TPM.
inline constexpr std::uint32_t kNoTransient = kTransientFirst | kIndexMask;

constexpr std::uint32_t type_of(std::uint32_t handle) noexcept {
  return handle & ~kIndexMask;
}
constexpr bool is_transient(std::uint32_t handle) noexcept {
  return type_of(handle) == kTransientFirst;
}
constexpr bool is_session(std::uint32_t handle) noexcept {
  return type_of(handle) == kHmacSessionFirst || type_of(handle) == kPolicySessionFirst;
}
constexpr SessionSlot slot_of(std::uint32_t session) noexcept {
  return SessionSlot{session & kIndexMask};
}

}  // namespace vtpm::space
