// SPDX-License-Identifier: Apache-2.0
#include <vtpm/log/merkle.h>

#include <array>
#include <bit>

namespace vtpm::log {
namespace {

constexpr std::array<std::uint8_t, 1> kLeafPrefix{0x00};
constexpr std::array<std::uint8_t, 1> kNodePrefix{0x01};

// The largest power of two below n. Precondition: n > 1.
std::uint64_t split(std::uint64_t n) noexcept {
  return std::bit_floor(n - 1);
}

Error out_of_tree(std::string_view what) {
  return {ErrorCode::Malformed, std::string(what) + " is beyond the log's end"};
}

}  // namespace

Sha256 leaf_hash(BytesView entry) noexcept {
  return tpm::sha256({kLeafPrefix, entry});
}

Sha256 node_hash(const Sha256& left, const Sha256& right) noexcept {
  return tpm::sha256({kNodePrefix, left, right});
}

Result<> MemoryNodes::put(unsigned level, std::uint64_t index, const Sha256& hash) {
  if (levels_.size() <= level) levels_.resize(level + 1);
  auto& nodes = levels_[level];
  if (index > nodes.size()) return Error(ErrorCode::Internal, "a node of the log was left out");
  // An append that failed half-way leaves nodes of the same leaves behind: written again, not added.
  if (index == nodes.size())
    nodes.push_back(hash);
  else
    nodes[index] = hash;
  return {};
}

Result<Sha256> MemoryNodes::get(unsigned level, std::uint64_t index) const {
  if (level >= levels_.size() || index >= levels_[level].size())
    return Error(ErrorCode::NotFound,
                 "node " + std::to_string(level) + "/" + std::to_string(index) + " is not in the log");
  return levels_[level][index];
}

Result<std::uint64_t> MerkleTree::append(const Sha256& leaf) {
  const std::uint64_t index = size_;
  Sha256 hash = leaf;
  VTPM_TRY_VOID(nodes_.put(0, index, hash));
  // Each one bit at the end of the index is a subtree that this leaf completes.
  for (unsigned level = 0; (index >> level) & 1; ++level) {
    VTPM_TRY(const Sha256 left, nodes_.get(level, (index >> level) - 1));
    hash = node_hash(left, hash);
    VTPM_TRY_VOID(nodes_.put(level + 1, index >> (level + 1), hash));
  }
  size_ = index + 1;
  return index;
}

// MTH(D[first : first + count]). `first` is a multiple of the smallest power of two not below `count`, as in
// every split of the RFC. Precondition: count > 0.
Result<Sha256> MerkleTree::subtree(std::uint64_t first, std::uint64_t count) const {
  if (std::has_single_bit(count)) {
    const auto level = static_cast<unsigned>(std::countr_zero(count));
    return nodes_.get(level, first >> level);
  }
  const std::uint64_t left_count = split(count);
  VTPM_TRY(const Sha256 left, subtree(first, left_count));
  VTPM_TRY(const Sha256 right, subtree(first + left_count, count - left_count));
  return node_hash(left, right);
}

Result<Sha256> MerkleTree::root(std::uint64_t size) const {
  if (size > size_) return out_of_tree("tree size " + std::to_string(size));
  if (size == 0) return tpm::sha256(BytesView());
  return subtree(0, size);
}

Result<Path> MerkleTree::inclusion_proof(std::uint64_t index, std::uint64_t size) const {
  if (size > size_) return out_of_tree("tree size " + std::to_string(size));
  if (index >= size) return out_of_tree("entry " + std::to_string(index));
  // From the root down; the RFC lists the hashes from the leaf up.
  Path path;
  std::uint64_t first = 0;
  while (size > 1) {
    const std::uint64_t left = split(size);
    const bool go_left = index - first < left;
    VTPM_TRY(const Sha256 sibling, go_left ? subtree(first + left, size - left) : subtree(first, left));
    path.insert(path.begin(), sibling);
    if (!go_left) first += left;
    size = go_left ? left : size - left;
  }
  return path;
}

Result<Path> MerkleTree::consistency_proof(std::uint64_t old_size, std::uint64_t size) const {
  if (size > size_) return out_of_tree("tree size " + std::to_string(size));
  if (old_size == 0 || old_size > size)
    return Error(ErrorCode::Malformed, "no consistency proof from " + std::to_string(old_size) + " to " +
                                           std::to_string(size) + " entries");
  Path path;
  std::uint64_t first = 0;
  // SUBPROOF(m, D[first : first + size], whole): `whole` while the old tree's root is known to the verifier.
  bool whole = true;
  while (old_size != size) {
    const std::uint64_t left = split(size);
    const bool go_left = old_size <= left;
    VTPM_TRY(const Sha256 other, go_left ? subtree(first + left, size - left) : subtree(first, left));
    path.insert(path.begin(), other);
    if (!go_left) {
      first += left;
      old_size -= left;
      whole = false;
    }
    size = go_left ? left : size - left;
  }
  if (!whole) {
    VTPM_TRY(const Sha256 last, subtree(first, size));
    path.insert(path.begin(), last);
  }
  return path;
}

bool verify_inclusion(const Sha256& leaf, std::uint64_t index, std::uint64_t size, const Path& path,
                      const Sha256& root) noexcept {
  if (index >= size) return false;
  std::uint64_t fn = index, sn = size - 1;  // named as in the RFC
  Sha256 r = leaf;
  for (const Sha256& p : path) {
    if (sn == 0) return false;
    if ((fn & 1) || fn == sn) {
      r = node_hash(p, r);
      while (!(fn & 1) && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      r = node_hash(r, p);
    }
    fn >>= 1;
    sn >>= 1;
  }
  return sn == 0 && r == root;
}

bool verify_consistency(std::uint64_t old_size, const Sha256& old_root, std::uint64_t size,
                        const Sha256& root, const Path& path) noexcept {
  if (old_size == 0 || old_size > size) return false;
  if (old_size == size) return path.empty() && old_root == root;
  std::uint64_t fn = old_size - 1, sn = size - 1;  // named as in the RFC
  while (fn & 1) {
    fn >>= 1;
    sn >>= 1;
  }
  auto next = path.begin();
  // An old tree that is one complete subtree is its own first hash.
  Sha256 fr = old_root;
  if (!std::has_single_bit(old_size)) {
    if (next == path.end()) return false;
    fr = *next++;
  }
  Sha256 sr = fr;
  for (; next != path.end(); ++next) {
    if (sn == 0) return false;
    if ((fn & 1) || fn == sn) {
      fr = node_hash(*next, fr);
      sr = node_hash(*next, sr);
      while (!(fn & 1) && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      sr = node_hash(sr, *next);
    }
    fn >>= 1;
    sn >>= 1;
  }
  return sn == 0 && fr == old_root && sr == root;
}

}  // namespace vtpm::log
