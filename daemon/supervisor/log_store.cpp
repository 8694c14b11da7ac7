// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/log_store.h"

namespace vtpm::supervisor {
namespace {

// The node table as the Merkle tree sees it.
class DatabaseNodes final : public log::NodeStore {
 public:
  explicit DatabaseNodes(Database& database) noexcept : database_(database) {}

  Result<> put(unsigned level, std::uint64_t index, const log::Sha256& hash) override {
    VTPM_TRY(Statement insert, database_.prepare("INSERT INTO node (level, idx, hash) VALUES (?1, ?2, ?3)"));
    return insert.bind(1, std::uint64_t{level}).bind(2, index).bind(3, BytesView(hash)).run();
  }

  Result<log::Sha256> get(unsigned level, std::uint64_t index) const override {
    VTPM_TRY(Statement select, database_.prepare("SELECT hash FROM node WHERE level = ?1 AND idx = ?2"));
    VTPM_TRY(const bool row, select.bind(1, std::uint64_t{level}).bind(2, index).step());
    if (!row) return Error(ErrorCode::Corrupt, database_.file() + ": a node of the log is missing");
    return tpm::sha256_from_bytes(select.blob(0));
  }

 private:
  Database& database_;
};

Error damaged(const Database& database, std::string_view what) {
  return {ErrorCode::Corrupt,
          database.file() + ": the log is damaged: " + std::string(what) + "; the file was kept as it is"};
}

}  // namespace

Result<LogStore> LogStore::open(Database& database) {
  LogStore store(database);
  log::MemoryNodes expected;
  std::uint64_t nodes = 0;
  VTPM_TRY_VOID(store.verify_entries(expected, nodes));
  VTPM_TRY_VOID(store.verify_nodes(expected, nodes));
  return store;
}

// Builds the tree again from the entries; a tree of n leaves has n + n/2 + n/4 + ... complete subtrees.
Result<> LogStore::verify_entries(log::MemoryNodes& expected, std::uint64_t& nodes) {
  log::MerkleTree tree(expected);
  VTPM_TRY(Statement select, database_->prepare("SELECT idx, bytes FROM entry ORDER BY idx"));
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) break;
    if (select.integer(0) != tree.size())
      return damaged(*database_, "entry " + std::to_string(tree.size()) + " is missing");
    VTPM_TRY_VOID(tree.append(log::leaf_hash(select.blob(1))));
  }
  size_ = tree.size();
  for (std::uint64_t width = size_; width > 0; width /= 2)
    nodes += width;
  return {};
}

Result<> LogStore::verify_nodes(const log::MemoryNodes& expected, std::uint64_t nodes) const {
  VTPM_TRY(Statement select, database_->prepare("SELECT level, idx, hash FROM node"));
  std::uint64_t seen = 0;
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) break;
    const std::string name = "node " + select.text(0) + "/" + select.text(1);
    if (select.integer(0) >= 64 || select.integer(1) >= size_ >> select.integer(0))
      return damaged(*database_, name + " is too many");
    VTPM_TRY(const log::Sha256 hash,
             expected.get(static_cast<unsigned>(select.integer(0)), select.integer(1)));
    const Bytes stored = select.blob(2);
    if (!std::equal(stored.begin(), stored.end(), hash.begin(), hash.end()))
      return damaged(*database_, name + " does not match the entries");
    ++seen;
  }
  if (seen != nodes) return damaged(*database_, "nodes are missing");
  return {};
}

Result<std::uint64_t> LogStore::append(const log::Entry& entry) {
  const std::string bytes = log::serialize(entry);
  VTPM_TRY(Statement insert, database_->prepare("INSERT INTO entry (idx, bytes) VALUES (?1, ?2)"));
  VTPM_TRY_VOID(insert.bind(1, size_).bind(2, as_bytes(bytes)).run());
  DatabaseNodes nodes(*database_);
  log::MerkleTree tree(nodes, size_);
  return tree.append(log::leaf_hash(as_bytes(bytes)));
}

Result<LogHead> LogStore::head(std::uint64_t size) const {
  DatabaseNodes nodes(*database_);
  VTPM_TRY(const log::Sha256 root, log::MerkleTree(nodes, size_).root(size));
  return LogHead{size, root};
}

Result<Bytes> LogStore::entry(std::uint64_t index) const {
  VTPM_TRY(std::vector<Bytes> found, entries(index, 1));
  if (found.empty()) return Error(ErrorCode::NotFound, "the log has no entry " + std::to_string(index));
  return std::move(found.front());
}

Result<std::vector<Bytes>> LogStore::entries(std::uint64_t start, std::uint64_t count) const {
  std::vector<Bytes> found;
  if (start >= size_) return found;
  VTPM_TRY(Statement select,
           database_->prepare("SELECT bytes FROM entry WHERE idx >= ?1 ORDER BY idx LIMIT ?2"));
  select.bind(1, start).bind(2, count);
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return found;
    found.push_back(select.blob(0));
  }
}

Result<evidence::LoggedEntry> LogStore::logged(std::uint64_t index, std::uint64_t size) const {
  VTPM_TRY(Bytes bytes, entry(index));
  VTPM_TRY(log::Path path, inclusion_proof(index, size));
  return evidence::LoggedEntry{std::move(bytes), index, std::move(path)};
}

Result<log::Path> LogStore::inclusion_proof(std::uint64_t index, std::uint64_t size) const {
  DatabaseNodes nodes(*database_);
  return log::MerkleTree(nodes, size_).inclusion_proof(index, size);
}

Result<log::Path> LogStore::consistency_proof(std::uint64_t from, std::uint64_t to) const {
  DatabaseNodes nodes(*database_);
  return log::MerkleTree(nodes, size_).consistency_proof(from, to);
}

}  // namespace vtpm::supervisor
