// SPDX-License-Identifier: Apache-2.0
// CommandStream: cuts what a client sends over a stream into TPM commands, each as long as its header says.
// Pure; its memory is one command.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/tpm/constants.h>
#include <vtpm/tpm/header.h>

#include <algorithm>
#include <array>
#include <span>

namespace vtpm::engine {

class CommandStream {
 public:
  // Where the next bytes may be read to; never empty unless the next command is whole or broken.
  std::span<std::uint8_t> room() noexcept { return std::span(bytes_).subspan(used_); }
  // `size` bytes were read to the beginning of room().
  void add(std::size_t size) noexcept { used_ += size; }

  enum class Next {
    Partial,  // more bytes are needed
    Whole,
    Broken,  // it says a size that no command has: where the one after it begins is not known
  };
  Next next() const noexcept {
    if (used_ < kSizeEnd) return Next::Partial;
    if (size() < tpm::kHeaderSize || size() > bytes_.size()) return Next::Broken;
    return used_ < size() ? Next::Partial : Next::Whole;
  }
  // Takes the next command out. Precondition: it is whole.
  Bytes take() {
    const auto end = bytes_.begin() + size();
    Bytes command(bytes_.begin(), end);
    std::copy(end, bytes_.begin() + static_cast<std::ptrdiff_t>(used_), bytes_.begin());
    used_ -= command.size();
    return command;
  }

 private:
  static constexpr std::size_t kSizeAt = 2;  // of the header
  static constexpr std::size_t kSizeEnd = kSizeAt + sizeof(std::uint32_t);

  std::uint32_t size() const noexcept { return get_be<std::uint32_t>(bytes_, kSizeAt); }

  std::size_t used_ = 0;
  std::array<std::uint8_t, tpm::kBufferMax> bytes_{};
};

}  // namespace vtpm::engine
