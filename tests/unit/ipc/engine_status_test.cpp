// SPDX-License-Identifier: Apache-2.0
// A vtpmd takes over engines of an older and of a newer version: their status must be readable to it.
#include "daemon/ipc/engine_status.h"

#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::ipc;

TEST_CASE("engine status: there and back") {
  const EngineStatus status{1, 2, 3, 4, 5, 6, 7, 8, 9};
  const auto back = decode_status(encode(status)).value();
  CHECK(encode(back) == encode(status));
  CHECK(back.sequence == 1);
  CHECK(back.cancelled == 9);
}

TEST_CASE("engine status: an older engine tells less, a newer one more") {
  const Bytes bytes = encode(EngineStatus{1, 2, 3, 4, 5, 6, 7, 8, 9});
  const auto older = decode_status(BytesView(bytes).first(64)).value();
  CHECK(older.nv_bytes == 8);
  CHECK(older.cancelled == 0);
  Bytes newer = bytes;
  newer.resize(bytes.size() + 8, 0xff);
  CHECK(encode(decode_status(newer).value()) == bytes);
}

TEST_CASE("engine status: what is no list of u64, or too long, is malformed") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{71}, kMaxU64List + 8})
    CHECK(decode_status(Bytes(size)).error().kind() == ErrorCode::Malformed);
}
