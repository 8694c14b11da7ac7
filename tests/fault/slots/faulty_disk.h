// SPDX-License-Identifier: Apache-2.0
// Two slot files on a disk that fails when it is told to: what is written goes to a page cache, and to the
// disk by fdatasync.
#pragma once

#include "daemon/engine/slot_store.h"

#include <deque>
#include <random>

namespace vtpm::test {

enum class Fault {
  None,
  NoSpace,      // pwrite: ENOSPC, nothing written
  WriteError,   // pwrite: EIO, nothing written
  ShortWrite,   // pwrite: half is written, which is no error
  HalfWritten,  // pwrite: half is written; the next call fails
  WroteZero,    // pwrite: 0
  SyncLost,     // fdatasync: EIO, nothing reached the disk, and the cache calls its pages clean
  SyncHalf,     // the same, but the first half reached the disk
  SyncAll,      // the same, but all of it did
};

class FaultyDisk {
 public:
  // What the calls from now on meet, one after the other; then none fails.
  void plan(std::deque<Fault> faults) { plan_ = std::move(faults); }
  // Every call fails from now on, or no longer.
  void die() { dead_ = true; }
  void repair() {
    dead_ = false;
    plan_.clear();
  }
  std::size_t calls() const noexcept { return calls_; }

  std::unique_ptr<engine::SlotFile> open(std::size_t file);
  // What a new process finds, and what a new kernel finds.
  const Bytes& cached(std::size_t file) const { return files_[file].cache; }
  const Bytes& stored(std::size_t file) const { return files_[file].disk; }
  // A power cut: of what is not yet synced, some sectors reach the disk.
  template <class Random>
  Bytes after_power_cut(std::size_t file, Random& random) const {
    Bytes disk = files_[file].disk;
    const Bytes& cache = files_[file].cache;
    std::bernoulli_distribution reaches(0.5);
    if (disk.size() < cache.size() && reaches(random)) disk.resize(cache.size());
    for (std::size_t at = 0; at < std::min(disk.size(), cache.size()); at += kSector)
      if (reaches(random))
        std::copy_n(cache.begin() + static_cast<std::ptrdiff_t>(at),
                    std::min({kSector, disk.size() - at, cache.size() - at}),
                    disk.begin() + static_cast<std::ptrdiff_t>(at));
    return disk;
  }

 private:
  class File;
  static constexpr std::size_t kSector = 512;
  struct Content {
    Bytes cache;
    Bytes disk;
    std::size_t dirty_begin = 0;
    std::size_t dirty_end = 0;
  };
  Fault next();

  std::array<Content, 2> files_;
  std::deque<Fault> plan_;
  std::size_t calls_ = 0;
  bool dead_ = false;
};

// A slot that is read only: a copy of what is on a disk.
std::unique_ptr<engine::SlotFile> frozen(Bytes content);

inline engine::SlotOwner test_owner() {
  return {{1, 2, 3}, Secret(Bytes(ipc::kStateKeySize, 0x21))};
}

}  // namespace vtpm::test
