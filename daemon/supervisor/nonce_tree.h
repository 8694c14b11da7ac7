// SPDX-License-Identifier: Apache-2.0
// The tree of the nonces that one epoch signs.
#pragma once

#include <vtpm/evidence/evidence.h>
#include <vtpm/log/merkle.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace vtpm::supervisor {

// Leaves: the nonces' bytes, in the order of their arrival. Movable; proofs are made when asked for.
class NonceTree {
 public:
  static Result<NonceTree> of(const std::vector<Bytes>& nonces);

  // No nonce: SHA-256 of nothing.
  const log::Sha256& root() const noexcept { return root_; }
  std::uint64_t size() const noexcept { return size_; }
  // That the nonce at `index` is in the tree. index >= size(): Malformed.
  Result<evidence::NonceProof> proof(std::uint64_t index) const;

 private:
  std::unique_ptr<log::MemoryNodes> nodes_;
  std::uint64_t size_ = 0;
  log::Sha256 root_{};
};

}  // namespace vtpm::supervisor
