// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/os/secret.h>

#include <algorithm>
#include <type_traits>

using namespace vtpm;

static_assert(!std::is_copy_constructible_v<Secret> && !std::is_copy_assignable_v<Secret>);

TEST_CASE("secret: random secrets have the size asked for and differ") {
  const auto first = Secret::random(32), second = Secret::random(32);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->view().size() == 32);
  CHECK_FALSE(std::ranges::equal(first->view(), second->view()));
  CHECK(Secret::random(0)->view().empty());
}

TEST_CASE("secret: moving takes the bytes, and nothing stays behind") {
  Bytes bytes{1, 2, 3};
  Secret first(std::move(bytes));
  CHECK(bytes.empty());
  Secret second(std::move(first));
  CHECK(first.view().empty());
  Secret third(Bytes{9});
  third = std::move(second);
  CHECK(second.view().empty());
  CHECK(std::ranges::equal(third.view(), Bytes{1, 2, 3}));
}
