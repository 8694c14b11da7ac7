// SPDX-License-Identifier: Apache-2.0
// What the TPM says about its own commands: TPMA_CC (TCG TPM 2.0 Library Part 2, 8.9). There is no list of
// commands in this project: whatever libtpms learns to do, its attributes say how handles stand in it.
#pragma once

#include <vtpm/tpm/constants.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vtpm::space {

class CommandAttributes {
 public:
  constexpr explicit CommandAttributes(std::uint32_t tpma_cc) noexcept : bits_(tpma_cc) {}

  // Handles in the handle area, 0 to 7 (a TPM has at most 3).
  constexpr std::size_t handles() const noexcept { return bits_ >> 25 & 7; }
  // The response has a handle area, with the one handle of a new or loaded object or session.
  constexpr bool makes_handle() const noexcept { return (bits_ & 1U << 28) != 0; }
  // The command ends a sequence object: "a loaded transient object is flushed".
  constexpr bool flushes() const noexcept { return (bits_ & 1U << 24) != 0; }
  // The command may flush any number of objects, or all of a hierarchy.
  constexpr bool extensive() const noexcept { return (bits_ & 1U << 23) != 0; }

  // The TPM_CC: bits 0-15 and V (bit 29).
  constexpr tpm::CommandCode code() const noexcept { return tpm::CommandCode{bits_ & 0x2000ffff}; }

 private:
  std::uint32_t bits_;
};

// The attributes of all commands that the TPM has.
class AttributeTable {
 public:
  AttributeTable() = default;
  explicit AttributeTable(std::vector<CommandAttributes> commands);

  bool empty() const noexcept { return commands_.empty(); }
  std::size_t size() const noexcept { return commands_.size(); }
  // nullptr: the TPM does not have the command.
  const CommandAttributes* find(tpm::CommandCode code) const noexcept;

 private:
  std::vector<CommandAttributes> commands_;  // by command code
};

}  // namespace vtpm::space
