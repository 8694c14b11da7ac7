// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/ek_certificate.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using vtpm::anchor::leading_der;

namespace {

Bytes der(Bytes header, std::size_t content, std::size_t padding) {
  header.resize(header.size() + content, 0x11);
  header.resize(header.size() + padding, 0xff);
  return header;
}

}  // namespace

TEST_CASE("EK certificate: padding after the DER is cut off") {
  const auto padding = GENERATE(0U, 1U, 100U);
  CHECK(leading_der(der({0x30, 0x05}, 5, padding)) == der({0x30, 0x05}, 5, 0));
  CHECK(leading_der(der({0x30, 0x81, 0xc8}, 200, padding)) == der({0x30, 0x81, 0xc8}, 200, 0));
  CHECK(leading_der(der({0x30, 0x82, 0x03, 0x00}, 768, padding)) == der({0x30, 0x82, 0x03, 0x00}, 768, 0));
}

TEST_CASE("EK certificate: what is not a whole DER sequence is none") {
  const auto bytes =
      GENERATE(Bytes{}, Bytes{0x30}, Bytes(64, 0xff), Bytes(64, 0x00), Bytes{0x30, 0x02, 0x01},
               Bytes{0x30, 0x82, 0x01}, Bytes{0x30, 0x80, 0x00, 0x00},
               Bytes{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x00}, Bytes{0x30, 0x82, 0xff, 0xff, 0x00});
  CHECK(!leading_der(bytes).has_value());
}
