// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/state_key.h"

#include "tests/support/catch_result.h"

#include <algorithm>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

Secret key(std::uint8_t fill) {
  return Secret(Bytes(kStateKeyBytes, fill));
}

void is_refused(const Result<Secret>& outcome) {
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().kind() == ErrorCode::Corrupt);
}

}  // namespace

TEST_CASE("state key: what was wrapped for an instance is unwrapped for it alone") {
  const auto wrapped = wrap_state_key(key(1), "00112233aabbccdd", key(2));
  REQUIRE(wrapped);
  const auto unwrapped = unwrap_state_key(key(1), "00112233aabbccdd", *wrapped);
  REQUIRE(unwrapped);
  const BytesView found = unwrapped->view();
  CHECK(Bytes(found.begin(), found.end()) == Bytes(kStateKeyBytes, 2));
  is_refused(unwrap_state_key(key(1), "00112233aabbccde", *wrapped));
  is_refused(unwrap_state_key(key(3), "00112233aabbccdd", *wrapped));
}

TEST_CASE("state key: the key is not in what is stored, and is never wrapped twice alike") {
  const auto one = wrap_state_key(key(1), "id", key(2));
  const auto two = wrap_state_key(key(1), "id", key(2));
  REQUIRE(one);
  REQUIRE(two);
  CHECK(*one != *two);
  const Bytes part(8, 2);
  CHECK(std::search(one->begin(), one->end(), part.begin(), part.end()) == one->end());
}

TEST_CASE("state key: each changed bit and each other length is refused") {
  const auto wrapped = wrap_state_key(key(1), "id", key(2));
  REQUIRE(wrapped);
  REQUIRE(wrapped->size() == 60);
  for (std::size_t bit = 0; bit < wrapped->size() * 8; ++bit) {
    Bytes changed = *wrapped;
    changed[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    is_refused(unwrap_state_key(key(1), "id", changed));
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{59}, std::size_t{61}}) {
    Bytes changed = *wrapped;
    changed.resize(size);
    is_refused(unwrap_state_key(key(1), "id", changed));
  }
}
