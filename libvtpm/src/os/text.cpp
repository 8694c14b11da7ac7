// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/text.h>

#include <algorithm>

namespace vtpm {
namespace {

constexpr std::string_view kDigestPrefix = "sha256:";
constexpr std::size_t kDigestDigits = 64;

bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool is_digit(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

}  // namespace

bool is_plain_text(std::string_view text, std::size_t max) noexcept {
  return !text.empty() && text.size() <= max && std::ranges::none_of(text, is_control);
}

bool is_content_digest(std::string_view text) noexcept {
  if (!text.starts_with(kDigestPrefix)) return false;
  text.remove_prefix(kDigestPrefix.size());
  return text.size() == kDigestDigits && std::ranges::all_of(text, is_digit);
}

}  // namespace vtpm
