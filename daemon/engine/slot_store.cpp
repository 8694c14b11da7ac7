// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/slot_store.h"

#include <algorithm>

namespace vtpm::engine {
namespace {

constexpr std::size_t kReadStep = 64 * 1024;

Result<Bytes> read_whole(SlotFile& file) {
  Bytes whole;
  while (whole.size() < kMaxSlotSize) {
    VTPM_TRY(const Bytes part, file.read_at(whole.size(), std::min(kReadStep, kMaxSlotSize - whole.size())));
    if (part.empty()) break;
    put(whole, part);
  }
  return whole;
}

// Tells also of a failure whether something may have reached the file.
struct Written {
  bool touched = false;
  Result<> result;
};

Written write_whole(SlotFile& file, BytesView bytes) {
  Written written;
  std::size_t offset = 0;
  while (offset < bytes.size()) {
    const auto n = file.write_at(offset, bytes.subspan(offset));
    if (!n) {
      written.result = n.error();
      return written;
    }
    if (*n == 0) {
      written.result = Error(ErrorCode::Io, "pwrite: nothing was written");
      return written;
    }
    written.touched = true;
    offset += *n;
  }
  written.result = file.sync();
  return written;
}

SlotName other(SlotName name) noexcept {
  return name == SlotName::A ? SlotName::B : SlotName::A;
}

}  // namespace

Result<SlotStore> SlotStore::open(SlotOwner owner, std::uint64_t least_sequence, std::unique_ptr<SlotFile> a,
                                  std::unique_ptr<SlotFile> b) {
  SlotStore store(std::move(owner), {File{std::move(a), 0}, File{std::move(b), 0}});
  std::array<Slot, 2> slots;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    auto bytes = read_whole(*store.files_[i].file);
    if (!bytes) return bytes.error().within(to_string(static_cast<SlotName>(i)));
    store.files_[i].size = bytes->size();
    slots[i] = decode_slot(store.owner_, *bytes);
  }
  VTPM_TRY(const Choice choice, choose_slot(slots[0], slots[1], least_sequence));
  store.remark_ = choice.remark;
  if (!choice.newest) return store;
  store.newest_ = choice.newest;
  auto& chosen = std::get<ValidSlot>(slots[static_cast<std::size_t>(*choice.newest)]);
  store.sequence_ = chosen.sequence;
  store.loaded_ = std::move(chosen.content);
  return store;
}

Result<> SlotStore::commit(std::uint32_t failed_tries, BytesView permanent) {
  const SlotName name = newest_ ? other(*newest_) : SlotName::A;
  File& target = files_[static_cast<std::size_t>(name)];
  VTPM_TRY(Bytes slot, encode_slot(owner_, sequence_ + 1, failed_tries, permanent));
  const std::size_t blocks = (slot.size() + kSlotBlock - 1) / kSlotBlock * kSlotBlock;
  slot.resize(target.size < kSlotReserve ? std::max(blocks, kSlotReserve) : blocks);
  const Written written = write_whole(*target.file, slot);
  if (!written.result) {
    Error failure = written.result.error().within(to_string(name));
    if (written.touched && !withdraw(target))
      failure.context += "; and it cannot be taken back: a restart before the next commit may find it done";
    return failure;
  }
  target.size = std::max(target.size, slot.size());
  newest_ = name;
  ++sequence_;
  return {};
}

// The client is told that its command did not happen, so a restart must not find it done: after a failed
// fdatasync the disk may hold all of it.
Result<> SlotStore::withdraw(File& target) {
  const Bytes nothing(kSlotHeaderSize);
  return write_whole(*target.file, nothing).result;
}

}  // namespace vtpm::engine
