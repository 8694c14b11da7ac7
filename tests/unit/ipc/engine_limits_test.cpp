// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_limits.h"

#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::ipc;

TEST_CASE("engine limits: what was encoded is decoded, in the order that FORMATS.md has") {
  EngineLimits limits{1, 2, 3, 4, 5, 6, 7, 8};
  const Bytes bytes = encode(limits);
  REQUIRE(bytes.size() == 8 * EngineLimits::kFields);
  for (std::size_t i = 0; i < EngineLimits::kFields; ++i)
    CHECK(get_be<std::uint64_t>(bytes, 8 * i) == i + 1);
  CHECK(decode_limits(bytes).value() == limits);
}

TEST_CASE("engine limits: vtpmd and engine may be of different versions") {
  EngineLimits limits;
  limits.spaces = 7;
  limits.nv_bytes = 4096;
  const Bytes bytes = encode(limits);
  Bytes newer = bytes;
  newer.resize(bytes.size() + 16, 0xff);
  CHECK(decode_limits(newer).value() == limits);
  const Bytes older(bytes.begin(), bytes.end() - 8);
  limits.nv_bytes = EngineLimits{}.nv_bytes;
  CHECK(decode_limits(older).value() == limits);
}

TEST_CASE("engine limits: what is no list of u64, or too long, is malformed") {
  const Bytes bytes = encode(EngineLimits{});
  for (const std::size_t size : {bytes.size() - 1, bytes.size() + 1, kMaxU64List + 8}) {
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
