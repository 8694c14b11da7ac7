// SPDX-License-Identifier: Apache-2.0
// Byte buffers, and big-endian integers in them.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vtpm {

using Bytes = std::vector<std::uint8_t>;
using BytesView = std::span<const std::uint8_t>;

// The bytes of a text, without a terminating NUL.
inline BytesView as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view as_text(BytesView bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Appends `value` big-endian.
template <std::unsigned_integral T>
void put_be(Bytes& out, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;)
    out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}
inline void put(Bytes& out, BytesView more) {
  out.insert(out.end(), more.begin(), more.end());
}

// The big-endian value at `offset`. Precondition: offset + sizeof(T) <= in.size().
template <std::unsigned_integral T>
T get_be(BytesView in, std::size_t offset = 0) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>((value << 8) | in[offset + i]);
  return value;
}

}  // namespace vtpm
