// SPDX-License-Identifier: Apache-2.0
// The host's log in the database: entries and the nodes of their Merkle tree. Blocking; one thread at a time.
#pragma once

#include "daemon/supervisor/database.h"

#include <vtpm/evidence/evidence.h>
#include <vtpm/log/entry.h>
#include <vtpm/log/merkle.h>

#include <vector>

namespace vtpm::supervisor {

struct LogHead {
  std::uint64_t size;
  log::Sha256 root;
};

class LogStore {
 public:
  // Reads the log and checks it whole: entries without a gap, every node the hash of what is below it.
  // Anything else is Corrupt, with the file's name. The database (borrowed) outlives the store.
  static Result<LogStore> open(Database& database);

  std::uint64_t size() const noexcept { return size_; }
  // Adds an entry within the caller's transaction; returns its index. The caller calls committed() after the
  // commit: until then size() is the old one.
  Result<std::uint64_t> append(const log::Entry& entry);
  void committed(std::uint64_t size) noexcept { size_ = size; }

  // The head after the first `size` entries (beyond the end: Malformed).
  Result<LogHead> head(std::uint64_t size) const;
  Result<Bytes> entry(std::uint64_t index) const;
  // At most `count` entries from `start`; fewer at the end.
  Result<std::vector<Bytes>> entries(std::uint64_t start, std::uint64_t count) const;
  Result<evidence::LoggedEntry> logged(std::uint64_t index, std::uint64_t size) const;
  Result<log::Path> inclusion_proof(std::uint64_t index, std::uint64_t size) const;
  Result<log::Path> consistency_proof(std::uint64_t from, std::uint64_t to) const;

 private:
  explicit LogStore(Database& database) noexcept : database_(&database) {}
  Result<> verify_entries(log::MemoryNodes& expected, std::uint64_t& nodes);
  Result<> verify_nodes(const log::MemoryNodes& expected, std::uint64_t nodes) const;

  Database* database_;
  std::uint64_t size_ = 0;
};

}  // namespace vtpm::supervisor
