// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/nonce_tree.h"

namespace vtpm::supervisor {

Result<NonceTree> NonceTree::of(const std::vector<Bytes>& nonces) {
  NonceTree made;
  made.nodes_ = std::make_unique<log::MemoryNodes>();
  log::MerkleTree tree(*made.nodes_);
  for (const Bytes& nonce : nonces) {
    VTPM_TRY_VOID(tree.append(log::leaf_hash(nonce)));
  }
  VTPM_TRY(made.root_, tree.root());
  made.size_ = tree.size();
  return made;
}

Result<evidence::NonceProof> NonceTree::proof(std::uint64_t index) const {
  if (index >= size_) return Error(ErrorCode::Malformed, "the nonce is not of this epoch");
  const log::MerkleTree tree(*nodes_, size_);
  VTPM_TRY(log::Path path, tree.inclusion_proof(index, size_));
  return evidence::NonceProof{index, size_, std::move(path)};
}

}  // namespace vtpm::supervisor
