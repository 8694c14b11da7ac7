// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/nonce_tree.h"

#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

TEST_CASE("nonce tree: without nonces the root is SHA-256 of nothing") {
  const auto tree = NonceTree::of({});
  REQUIRE(tree);
  CHECK(tree->root() == tpm::sha256(BytesView()));
  CHECK(tree->size() == 0);
  CHECK_FALSE(tree->proof(0));
}

TEST_CASE("nonce tree: each nonce has a proof that verifies, and only for itself") {
  const auto count = GENERATE(1u, 2u, 3u, 7u, 64u);
  std::vector<Bytes> nonces;
  for (unsigned i = 0; i < count; ++i)
    nonces.push_back(Bytes(8 + i % 57, static_cast<std::uint8_t>(i)));
  auto built = NonceTree::of(nonces);
  REQUIRE(built);
  const NonceTree tree = std::move(*built);
  for (unsigned i = 0; i < count; ++i) {
    const auto proof = tree.proof(i);
    REQUIRE(proof);
    CHECK(proof->index == i);
    CHECK(proof->count == count);
    CHECK(log::verify_inclusion(log::leaf_hash(nonces[i]), i, count, proof->path, tree.root()));
    CHECK_FALSE(log::verify_inclusion(log::leaf_hash(Bytes(8, 0xff)), i, count, proof->path, tree.root()));
  }
  CHECK_FALSE(tree.proof(count));
}

TEST_CASE("nonce tree: the same nonce twice is two leaves") {
  const auto tree = NonceTree::of({Bytes(8, 1), Bytes(8, 1)});
  REQUIRE(tree);
  CHECK(tree->size() == 2);
  CHECK(tree->proof(1));
}
