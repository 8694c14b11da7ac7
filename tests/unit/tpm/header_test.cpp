// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/tpm/header.h>

using namespace vtpm;
using namespace vtpm::tpm;

namespace {

Bytes packet(std::uint16_t tag, std::uint32_t size, std::uint32_t code, std::size_t length) {
  Bytes bytes;
  put_be(bytes, tag);
  put_be(bytes, size);
  put_be(bytes, code);
  bytes.resize(length);
  return bytes;
}

}  // namespace

TEST_CASE("command header: a well-formed command passes, with its fields") {
  const auto check = check_command(packet(0x8001, 12, 0x17b, 12));
  CHECK(check.code == ResponseCode::Success);
  CHECK(check.header.tag == 0x8001);
  CHECK(check.header.size == 12);
  CHECK(check.header.code == 0x17b);
  CHECK(check_command(packet(0x8002, 10, 0x17b, 10)).code == ResponseCode::Success);
  CHECK(check_command(packet(0x8001, 4096, 0x17b, 4096)).code == ResponseCode::Success);
}

TEST_CASE("command header: an unknown command code is the TPM's to answer") {
  CHECK(check_command(packet(0x8001, 10, 0xffffffff, 10)).code == ResponseCode::Success);
}

TEST_CASE("command header: sizes that lie are TPM_RC_COMMAND_SIZE") {
  const auto [size, length] = GENERATE(table<std::uint32_t, std::size_t>({{10, 0},
                                                                          {10, 1},
                                                                          {10, 9},
                                                                          {9, 9},
                                                                          {0, 10},
                                                                          {9, 10},
                                                                          {11, 10},
                                                                          {0xffffffff, 10},
                                                                          {4096, 4095},
                                                                          {4097, 4097},
                                                                          {0x80000000, 4096}}));
  INFO(size << " in " << length);
  CHECK(check_command(packet(0x8001, size, 0x17b, length)).code == ResponseCode::CommandSize);
}

TEST_CASE("command header: tags that no command has are TPM_RC_BAD_TAG") {
  const std::uint16_t tag = GENERATE(as<std::uint16_t>(), 0, 0x00c1, 0x8000, 0x8003, 0x8018, 0xffff);
  CHECK(check_command(packet(tag, 10, 0x17b, 10)).code == ResponseCode::BadTag);
}

TEST_CASE("response header: a well-formed response is parsed whatever its code") {
  const auto header = parse_response(packet(0x8001, 10, 0x922, 10));
  REQUIRE(header);
  CHECK(header->code == 0x922);
  CHECK(header->size == 10);
}

TEST_CASE("response header: size below 10 is refused") {
  CHECK(parse_response({}).error().kind() == ErrorCode::Malformed);
  CHECK(parse_response(packet(0x8001, 9, 0, 9)).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("response header: a size that disagrees with the length is refused") {
  CHECK_FALSE(parse_response(packet(0x8001, 10, 0, 11)));
  CHECK_FALSE(parse_response(packet(0x8001, 12, 0, 11)));
  CHECK_FALSE(parse_response(packet(0x8001, 0xffffffff, 0, 10)));
}

TEST_CASE("error response: it is a header with the code") {
  CHECK(error_response(ResponseCode::CommandSize) == Bytes{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x42});
  CHECK(error_response(ResponseCode::BadTag) == Bytes{0x00, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0x1e});
  CHECK(parse_response(error_response(ResponseCode::Retry)));
}

TEST_CASE("locality: 0 to 4 are localities") {
  for (unsigned value = 0; value <= 4; ++value)
    CHECK(Locality::make(value)->value() == value);
  CHECK(Locality::make(5).error().kind() == ErrorCode::Malformed);
  CHECK_FALSE(Locality::make(256));
  CHECK(Locality::tenant().value() == 0);
}
