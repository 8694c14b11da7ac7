// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_limits.h"

#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::ipc;

TEST_CASE("engine limits: what was encoded is decoded, in the order that FORMATS.md has") {
  EngineLimits limits{1, 2, 3, 4, 5, 6, 7, 8};
  const Bytes bytes = encode(limits);
  REQUIRE(bytes.size() == EngineLimits::kSize);
  for (std::size_t i = 0; i < EngineLimits::kFields; ++i)
    CHECK(get_be<std::uint64_t>(bytes, 8 * i) == i + 1);
  CHECK(decode_limits(bytes).value() == limits);
}

TEST_CASE("engine limits: another size is malformed") {
  const Bytes bytes = encode(EngineLimits{});
  for (const std::size_t size : {std::size_t{0}, bytes.size() - 1, bytes.size() + 1}) {
    Bytes other = bytes;
    other.resize(size);
    CHECK(decode_limits(other).error().kind() == ErrorCode::Malformed);
  }
}

TEST_CASE("engine limits: each value is from its range") {
  for (const LimitField& field : kLimitFields) {
    INFO(field.name);
    EngineLimits limits;
    for (const auto value : {field.least, field.most}) {
      limits.*field.value = value;
      CHECK(decode_limits(encode(limits)));
    }
    limits.*field.value = field.most + 1;
    CHECK_FALSE(decode_limits(encode(limits)));
    if (field.least == 0) continue;
    limits.*field.value = field.least - 1;
    CHECK_FALSE(decode_limits(encode(limits)));
  }
}
