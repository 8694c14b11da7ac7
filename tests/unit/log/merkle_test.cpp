// SPDX-License-Identifier: Apache-2.0
// Known answers are those of the Certificate Transparency reference tree (eight leaves); the exhaustive cases
// compare with the definitions of RFC 9162, section 2.1, computed naively.
#include "tests/support/catch_result.h"

#include <vtpm/log/merkle.h>
#include <vtpm/os/encoding.h>

#include <bit>

using namespace vtpm;
using namespace vtpm::log;

namespace {

const std::vector<std::string> kLeaves = {
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"};

struct Tree {
  MemoryNodes nodes;
  MerkleTree tree{nodes};
  std::vector<Sha256> leaves;

  void add(BytesView entry) {
    leaves.push_back(leaf_hash(entry));
    REQUIRE(tree.append(leaves.back()));
  }
};

std::unique_ptr<Tree> reference_tree() {
  auto tree = std::make_unique<Tree>();
  for (const auto& leaf : kLeaves)
    tree->add(*from_hex(leaf));
  return tree;
}

std::unique_ptr<Tree> counting_tree(unsigned size) {
  auto tree = std::make_unique<Tree>();
  for (unsigned i = 0; i < size; ++i)
    tree->add(as_bytes("entry " + std::to_string(i)));
  return tree;
}

std::vector<std::string> hex(const Path& path) {
  std::vector<std::string> out;
  for (const auto& hash : path)
    out.push_back(to_hex(hash));
  return out;
}

using Leaves = std::span<const Sha256>;

// MTH of RFC 9162 2.1.1.
Sha256 naive_root(Leaves leaves) {
  if (leaves.empty()) return tpm::sha256(BytesView());
  if (leaves.size() == 1) return leaves[0];
  const auto k = std::bit_floor(leaves.size() - 1);
  return node_hash(naive_root(leaves.first(k)), naive_root(leaves.subspan(k)));
}

// PATH of RFC 9162 2.1.3.1.
Path naive_path(std::size_t m, Leaves leaves) {
  if (leaves.size() == 1) return {};
  const auto k = std::bit_floor(leaves.size() - 1);
  Path path = m < k ? naive_path(m, leaves.first(k)) : naive_path(m - k, leaves.subspan(k));
  path.push_back(naive_root(m < k ? leaves.subspan(k) : leaves.first(k)));
  return path;
}

// SUBPROOF of RFC 9162 2.1.4.1.
Path naive_proof(std::size_t m, Leaves leaves, bool whole) {
  if (m == leaves.size()) return whole ? Path{} : Path{naive_root(leaves)};
  const auto k = std::bit_floor(leaves.size() - 1);
  Path path = m <= k ? naive_proof(m, leaves.first(k), whole) : naive_proof(m - k, leaves.subspan(k), false);
  path.push_back(naive_root(m <= k ? leaves.subspan(k) : leaves.first(k)));
  return path;
}

constexpr unsigned kExhaustive = 70;

}  // namespace

TEST_CASE("merkle: the roots of the reference tree") {
  const std::vector<std::string> roots = {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                                          "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                                          "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                                          "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                                          "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                                          "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                                          "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                                          "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                                          "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  const auto reference = reference_tree();
  for (std::size_t size = 0; size < roots.size(); ++size)
    CHECK(to_hex(*reference->tree.root(size)) == roots[size]);
}

TEST_CASE("merkle: the inclusion paths of the reference tree") {
  struct Known {
    std::uint64_t index, size;
    std::vector<std::string> path;
  };
  const auto known = GENERATE(values<Known>({
      {0, 1, {}},
      {0, 2, {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"}},
      {1, 2, {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"}},
      {2, 3, {"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"}},
      {1,
       5,
       {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
      {0,
       8,
       {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
      {5,
       8,
       {"bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
  }));
  const auto reference = reference_tree();
  CHECK(hex(*reference->tree.inclusion_proof(known.index, known.size)) == known.path);
}

TEST_CASE("merkle: the consistency proofs of the reference tree") {
  struct Known {
    std::uint64_t old_size, size;
    std::vector<std::string> path;
  };
  const auto known = GENERATE(values<Known>({
      {1, 1, {}},
      {1,
       8,
       {"96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"}},
      {2,
       5,
       {"5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"}},
      {6,
       8,
       {"0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"}},
  }));
  const auto reference = reference_tree();
  CHECK(hex(*reference->tree.consistency_proof(known.old_size, known.size)) == known.path);
}

TEST_CASE("merkle: every inclusion proof is the RFC's and holds for its own leaf, index and root only") {
  const auto t = counting_tree(kExhaustive);
  unsigned wrong = 0;
  for (std::uint64_t size = 1; size <= kExhaustive; ++size) {
    const Leaves leaves = Leaves(t->leaves).first(size);
    const Sha256 root = *t->tree.root(size);
    wrong += root != naive_root(leaves);
    for (std::uint64_t index = 0; index < size; ++index) {
      const Path path = *t->tree.inclusion_proof(index, size);
      wrong += path != naive_path(index, leaves);
      wrong += !verify_inclusion(leaves[index], index, size, path, root);
      for (std::uint64_t other = 0; other <= size; ++other)
        wrong += other != index && verify_inclusion(leaves[index], other, size, path, root);
      Sha256 leaf = leaves[index];
      leaf[31] ^= 1;
      wrong += verify_inclusion(leaf, index, size, path, root);
      Path more = path;
      more.push_back(root);
      wrong += verify_inclusion(leaves[index], index, size, more, root);
      for (std::size_t i = 0; i < path.size(); ++i) {
        Path changed = path, shorter = path;
        changed[i][0] ^= 0x80;
        shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(i));
        wrong += verify_inclusion(leaves[index], index, size, changed, root);
        wrong += verify_inclusion(leaves[index], index, size, shorter, root);
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("merkle: every consistency proof is the RFC's and holds for its own sizes and roots only") {
  const auto t = counting_tree(kExhaustive);
  unsigned wrong = 0;
  for (std::uint64_t size = 1; size <= kExhaustive; ++size) {
    const Leaves leaves = Leaves(t->leaves).first(size);
    const Sha256 root = *t->tree.root(size);
    for (std::uint64_t old_size = 1; old_size <= size; ++old_size) {
      const Sha256 old_root = *t->tree.root(old_size);
      const Path path = *t->tree.consistency_proof(old_size, size);
      wrong += path != naive_proof(old_size, leaves, true);
      wrong += !verify_consistency(old_size, old_root, size, root, path);
      Sha256 other = old_root;
      other[0] ^= 1;
      wrong += verify_consistency(old_size, other, size, root, path);
      other = root;
      other[0] ^= 1;
      wrong += verify_consistency(old_size, old_root, size, other, path);
      Path more = path;
      more.push_back(root);
      wrong += verify_consistency(old_size, old_root, size, root, more);
      for (std::size_t i = 0; i < path.size(); ++i) {
        Path changed = path, shorter = path;
        changed[i][0] ^= 0x80;
        shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(i));
        wrong += verify_consistency(old_size, old_root, size, root, changed);
        wrong += verify_consistency(old_size, old_root, size, root, shorter);
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("merkle: proofs beyond the tree, and from an empty tree, are refused") {
  const auto t = counting_tree(5);
  CHECK(t->tree.root(6).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.inclusion_proof(5, 5).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.inclusion_proof(0, 6).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.inclusion_proof(0, 0).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.consistency_proof(0, 5).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.consistency_proof(5, 4).error().kind() == ErrorCode::Malformed);
  CHECK(t->tree.consistency_proof(3, 6).error().kind() == ErrorCode::Malformed);
  CHECK_FALSE(verify_inclusion({}, 0, 0, {}, {}));
  CHECK_FALSE(verify_consistency(0, {}, 0, {}, {}));
  CHECK_FALSE(verify_consistency(0, {}, 5, {}, {}));
  CHECK_FALSE(verify_consistency(5, {}, 4, {}, {}));
  CHECK_FALSE(verify_inclusion({}, ~0ULL - 1, ~0ULL, Path(64), {}));
}

TEST_CASE("merkle: a tree continues over the nodes of an earlier one") {
  const auto t = counting_tree(11);
  MerkleTree again(t->nodes, 11);
  const Sha256 leaf = leaf_hash(as_bytes("entry 11"));
  CHECK(again.append(leaf).value() == 11);
  CHECK(*again.root() == *counting_tree(12)->tree.root());
}

namespace {

// Nodes whose put fails from the n-th on.
class FailingNodes final : public NodeStore {
 public:
  Result<> put(unsigned level, std::uint64_t index, const Sha256& hash) override {
    if (left == 0) return Error(ErrorCode::Exhausted, "the disk is full");
    --left;
    return nodes.put(level, index, hash);
  }
  Result<Sha256> get(unsigned level, std::uint64_t index) const override { return nodes.get(level, index); }

  MemoryNodes nodes;
  unsigned left = 1000;
};

}  // namespace

TEST_CASE("merkle: an append that fails at any node leaves the tree as it was, and can be tried again") {
  const unsigned puts = GENERATE(0U, 1U, 2U, 3U);
  FailingNodes nodes;
  MerkleTree tree(nodes);
  for (unsigned i = 0; i < 7; ++i)
    REQUIRE(tree.append(leaf_hash(as_bytes("entry " + std::to_string(i)))));
  const Sha256 before = *tree.root();
  nodes.left = puts;
  REQUIRE_FALSE(tree.append(leaf_hash(as_bytes("lost"))));  // the eighth leaf completes three subtrees
  CHECK(tree.size() == 7);
  CHECK(*tree.root() == before);
  nodes.left = 1000;
  REQUIRE(tree.append(leaf_hash(as_bytes("entry 7"))));
  CHECK(*tree.root() == *counting_tree(8)->tree.root());
}
