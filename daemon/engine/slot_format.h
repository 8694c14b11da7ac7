// SPDX-License-Identifier: Apache-2.0
// The bytes of a slot file (FORMATS.md: "Slot files"), and which of two slots a TPM continues from. Pure: no
// files, no TPM. What is decoded is hostile until its tag has been checked.
#pragma once

#include "daemon/ipc/engine_link.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>

#include <optional>
#include <string>
#include <variant>

namespace vtpm::engine {

inline constexpr std::size_t kSlotHeaderSize = 44;       // bytes
inline constexpr std::size_t kSlotTagSize = 16;          // bytes
inline constexpr std::size_t kMaxSlotContent = 1 << 20;  // bytes, of the plaintext
inline constexpr std::size_t kMaxSlotSize = kSlotHeaderSize + kMaxSlotContent + kSlotTagSize;

// Whose slots: what they are bound to and encrypted with.
struct SlotOwner {
  ipc::InstanceIdBytes id;
  Secret state_key;  // ipc::kStateKeySize bytes
};

// What a commit keeps.
struct SlotContent {
  std::uint32_t failed_tries = 0;  // TPM_PT_LOCKOUT_COUNTER at the commit
  Bytes permanent;                 // libtpms' permanent state blob
};

// One slot with that content, under a fresh nonce. Internal: OpenSSL failed, or the content is too large.
Result<Bytes> encode_slot(const SlotOwner& owner, std::uint64_t sequence, std::uint32_t failed_tries,
                          BytesView permanent);

// What a file turned out to be.
struct EmptySlot {};  // no bytes at all: never written
struct ValidSlot {
  std::uint64_t sequence;
  SlotContent content;
};
struct UnusableSlot {
  std::string why;  // "torn or damaged: ..."
};
using Slot = std::variant<EmptySlot, ValidSlot, UnusableSlot>;

// Bytes behind the slot's own are ignored: what an earlier, longer state left, and the reserve.
Slot decode_slot(const SlotOwner& owner, BytesView file);

enum class SlotName { A, B };
std::string_view to_string(SlotName name) noexcept;  // "slot a"

// Where a TPM begins.
struct Choice {
  std::optional<SlotName> newest;  // nothing: manufacture
  // For the log: the other slot was unusable, as it is after a crash during a commit. Empty: in order.
  std::string remark;
};
// Corrupt, saying which slots and why: nothing valid although something is or was there, two different states
// of one sequence, or the newest is older than `least_sequence`.
Result<Choice> choose_slot(const Slot& a, const Slot& b, std::uint64_t least_sequence);

}  // namespace vtpm::engine
