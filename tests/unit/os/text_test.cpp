// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/os/text.h>

#include <string>

using namespace vtpm;

TEST_CASE("text: plain text is 1 to max bytes without control characters") {
  CHECK(is_plain_text("a", 1));
  CHECK(is_plain_text("\xc3\xa9 ~", kMaxId));
  CHECK(is_plain_text(std::string(kMaxId, 'c'), kMaxId));
  CHECK_FALSE(is_plain_text(std::string(kMaxId + 1, 'c'), kMaxId));
  CHECK_FALSE(is_plain_text("", kMaxId));
  CHECK_FALSE(is_plain_text("a\n", kMaxId));
  CHECK_FALSE(is_plain_text("a\x1b", kMaxId));
  CHECK_FALSE(is_plain_text("a\x7f", kMaxId));
  CHECK_FALSE(is_plain_text(std::string_view("a\0", 2), kMaxId));
}

TEST_CASE("text: a content digest is sha256: and 64 lower-case digits") {
  CHECK(is_content_digest("sha256:" + std::string(64, 'a')));
  CHECK(is_content_digest("sha256:" + std::string(32, '0') + std::string(32, '9')));
  const auto wrong = GENERATE(as<std::string>(), "", "sha256:", "sha256:12", std::string(64, 'a'),
                              "sha256:" + std::string(64, 'A'), "sha256:" + std::string(64, 'g'),
                              "sha256:" + std::string(65, 'a'), "sha512:" + std::string(64, 'a'),
                              "sha256:" + std::string(63, 'a') + "\n", "SHA256:" + std::string(64, 'a'));
  INFO(wrong);
  CHECK_FALSE(is_content_digest(wrong));
}
