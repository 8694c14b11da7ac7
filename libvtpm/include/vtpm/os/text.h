// SPDX-License-Identifier: Apache-2.0
// What a text must be to go into the log, the launch document and onto a terminal: one rule for all who take
// texts from others, so that nothing is accepted that cannot be attested later.
#pragma once

#include <cstddef>
#include <string_view>

namespace vtpm {

// Bounds of ids (of an instance, of a container) and of short texts, bytes.
inline constexpr std::size_t kMaxId = 256;
inline constexpr std::size_t kMaxShortText = 256;

// 1 to `max` bytes, no control characters (0x00-0x1f, 0x7f). That it is UTF-8 is for the JSON reader to say.
bool is_plain_text(std::string_view text, std::size_t max) noexcept;
// "sha256:" and 64 lower-case hexadecimal digits.
bool is_content_digest(std::string_view text) noexcept;

}  // namespace vtpm
