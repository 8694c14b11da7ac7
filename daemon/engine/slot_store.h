// SPDX-License-Identifier: Apache-2.0
// The two slots of a durable TPM: loads the newest state, and commits a new one so that at any moment one of
// the two is whole.
#pragma once

#include "daemon/engine/slot_file.h"
#include "daemon/engine/slot_format.h"

#include <array>

namespace vtpm::engine {

// A file is made at least this long by its first commit, and each commit is a whole number of blocks: later
// commits overwrite blocks that the file has, so that a disk that fills up does not stop them.
inline constexpr std::size_t kSlotReserve = 32 * 1024;  // bytes
inline constexpr std::size_t kSlotBlock = 4096;         // bytes

class SlotStore {
 public:
  // Reads both slots. Corrupt as choose_slot; Io and the like: a slot cannot be read.
  static Result<SlotStore> open(SlotOwner owner, std::uint64_t least_sequence, std::unique_ptr<SlotFile> a,
                                std::unique_ptr<SlotFile> b);

  // The state that was loaded; nothing for a TPM that is to be manufactured. Taken: a second call has
  // nothing.
  std::optional<SlotContent> take_loaded() { return std::exchange(loaded_, std::nullopt); }

  // For a person: one slot was unusable, as it is after a crash during a commit. Empty: in order.
  const std::string& remark() const noexcept { return remark_; }

  // Writes the state to the older slot, and to disk. After an Error the newest state on disk is the one
  // before, and the next commit goes to the same slot again, whole: what the page cache says of it after a
  // failed fdatasync is not believed. The exception is a disk that also refuses to take back what it may have
  // written: then, until a later commit succeeds, a restart may find the refused state; the text says so.
  // Blocks for the disk.
  Result<> commit(std::uint32_t failed_tries, BytesView permanent);

  // Of the last commit; 0: none.
  std::uint64_t sequence() const noexcept { return sequence_; }

 private:
  struct File {
    std::unique_ptr<SlotFile> file;
    std::size_t size = 0;  // bytes it has on disk, as far as known
  };

  SlotStore(SlotOwner owner, std::array<File, 2> files) noexcept
      : owner_(std::move(owner)), files_(std::move(files)) {}
  static Result<> withdraw(File& target);

  SlotOwner owner_;
  std::array<File, 2> files_;  // by SlotName
  std::optional<SlotName> newest_;
  std::uint64_t sequence_ = 0;
  std::optional<SlotContent> loaded_;
  std::string remark_;
};

}  // namespace vtpm::engine
