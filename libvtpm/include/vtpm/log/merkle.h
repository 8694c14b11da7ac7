// SPDX-License-Identifier: Apache-2.0
// The append-only Merkle tree of RFC 9162 section 2.1, SHA-256.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/digest.h>

#include <cstdint>
#include <vector>

namespace vtpm::log {

using tpm::Sha256;
using Path = std::vector<Sha256>;

// SHA-256(0x00 || entry).
Sha256 leaf_hash(BytesView entry) noexcept;
// SHA-256(0x01 || left || right).
Sha256 node_hash(const Sha256& left, const Sha256& right) noexcept;

// Where the hashes of complete subtrees are kept. The subtree (level, index) covers the leaves
// [index << level, (index + 1) << level). Written once, never changed.
class NodeStore {
 public:
  virtual ~NodeStore() = default;
  virtual Result<> put(unsigned level, std::uint64_t index, const Sha256& hash) = 0;
  virtual Result<Sha256> get(unsigned level, std::uint64_t index) const = 0;
};

// A NodeStore in memory.
class MemoryNodes final : public NodeStore {
 public:
  Result<> put(unsigned level, std::uint64_t index, const Sha256& hash) override;
  Result<Sha256> get(unsigned level, std::uint64_t index) const override;

 private:
  std::vector<std::vector<Sha256>> levels_;
};

// A tree over a store (borrowed). Appends and proofs cost O(log size) store accesses.
class MerkleTree {
 public:
  // `size` leaves are in the store already.
  explicit MerkleTree(NodeStore& nodes, std::uint64_t size = 0) noexcept : nodes_(nodes), size_(size) {}

  std::uint64_t size() const noexcept { return size_; }
  // Adds a leaf by its leaf_hash; returns its index. After an error the tree is unchanged.
  Result<std::uint64_t> append(const Sha256& leaf);
  // Root of the first `size` leaves; size 0 is SHA-256 of nothing. Above size(): Malformed.
  Result<Sha256> root(std::uint64_t size) const;
  Result<Sha256> root() const { return root(size_); }
  // RFC 9162 2.1.3.1: PATH(index, D[size]).
  Result<Path> inclusion_proof(std::uint64_t index, std::uint64_t size) const;
  // RFC 9162 2.1.4.1: PROOF(old_size, D[size]).
  Result<Path> consistency_proof(std::uint64_t old_size, std::uint64_t size) const;

 private:
  Result<Sha256> subtree(std::uint64_t first, std::uint64_t count) const;

  NodeStore& nodes_;
  std::uint64_t size_;
};

// RFC 9162 2.1.3.2. False for any input that is not a proof.
bool verify_inclusion(const Sha256& leaf, std::uint64_t index, std::uint64_t size, const Path& path,
                      const Sha256& root) noexcept;
// RFC 9162 2.1.4.2.
bool verify_consistency(std::uint64_t old_size, const Sha256& old_root, std::uint64_t size,
                        const Sha256& root, const Path& path) noexcept;

}  // namespace vtpm::log
