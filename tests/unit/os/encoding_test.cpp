// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>

using namespace vtpm;

TEST_CASE("hex: bytes are written in lower case and read back") {
  const Bytes bytes{0x00, 0x0f, 0xa5, 0xff};
  CHECK(to_hex(bytes) == "000fa5ff");
  CHECK(from_hex("000fa5ff").value() == bytes);
  CHECK(from_hex("").value().empty());
}

TEST_CASE("hex: an odd number of digits, capitals and anything else is malformed") {
  const std::string text = GENERATE("0", "000", "0A", "0g", " 00", "00 ", "0x", "-1", "\xff\xff");
  INFO(text);
  CHECK(from_hex(text).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("base64: known answers of RFC 4648") {
  const auto [text, encoded] = GENERATE(table<std::string, std::string>({{"", ""},
                                                                         {"f", "Zg=="},
                                                                         {"fo", "Zm8="},
                                                                         {"foo", "Zm9v"},
                                                                         {"foob", "Zm9vYg=="},
                                                                         {"fooba", "Zm9vYmE="},
                                                                         {"foobar", "Zm9vYmFy"}}));
  CHECK(to_base64(as_bytes(text)) == encoded);
  const auto decoded = from_base64(encoded);
  REQUIRE(decoded);
  CHECK(as_text(*decoded) == text);
}

TEST_CASE("base64: every length and byte value is read back") {
  Bytes bytes;
  for (unsigned i = 0; i < 300; ++i) {
    CHECK(from_base64(to_base64(bytes)).value() == bytes);
    bytes.push_back(static_cast<std::uint8_t>(i * 7));
  }
}

TEST_CASE("base64: a second spelling of the same bytes is malformed") {
  const std::string text = GENERATE("Zg", "Zg=", "Zh==", "Zm9=", "Zg==\n", " Zg==", "Zg== ", "Zm9v\n",
                                    "Z=g=", "====", "=AAA", "A===", "Zm9v====", "Zg==Zg==", "Zm-v", "Zm_v",
                                    "    ", "\n\n\n\n", "Zm9v    ", "    Zm9v", "Z\0==");
  INFO(text);
  const auto decoded = from_base64(text);
  REQUIRE_FALSE(decoded);
  CHECK(decoded.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("bytes: integers are big-endian") {
  Bytes bytes;
  put_be<std::uint16_t>(bytes, 0x0102);
  put_be<std::uint32_t>(bytes, 0x03040506);
  put_be<std::uint64_t>(bytes, 0x0708090a0b0c0d0eULL);
  CHECK(to_hex(bytes) == "0102030405060708090a0b0c0d0e");
  CHECK(get_be<std::uint16_t>(bytes) == 0x0102);
  CHECK(get_be<std::uint32_t>(bytes, 2) == 0x03040506);
  CHECK(get_be<std::uint64_t>(bytes, 6) == 0x0708090a0b0c0d0eULL);
}
