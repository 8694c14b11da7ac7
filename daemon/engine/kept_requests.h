// SPDX-License-Identifier: Apache-2.0
// KeptRequests: FUSE requests that a signal handler has read, for later. All of its memory is there before.
//
// The kernel gives its requests in their order, but for interrupts, which come before all others: to see the
// next interrupt or close one must be able to read whatever comes before it. So there is always room to read
// one more request; of those that begin something (writes, opens, reads) no more than a bound are kept, and
// those beyond it are refused; those that end something (closes, interrupts) have room of their own. They are
// few, since the kernel sends one close for each open file, and one interrupt for each request that waits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vtpm::engine {

// Bytes of data in one WRITE request; a longer write(2) comes in several. Part of the session's agreement
// with the kernel: a process that continues a session relies on the same value.
inline constexpr std::uint32_t kFuseMaxWrite = 8192;
// Bytes of buffer that any request fits in.
inline constexpr std::size_t kFuseBuffer = kFuseMaxWrite + 4096;

class FuseMount;

class KeptRequests {
 public:
  enum class Kind : std::uint8_t { Close, Interrupt, Other };

  // Of other requests: one for each of the most open files that a TPM can have; and bytes, room for a largest
  // command of each of 256, as many as it has by default.
  static constexpr std::size_t kMostOthers = 1024;
  static constexpr std::size_t kMostBytes = 1280 * 1024;
  // Of closes and interrupts. Bytes of each; the kernel's are 64 and 48.
  static constexpr std::size_t kMostEnds = 4096;
  static constexpr std::size_t kEndSize = 64;

  // Where the next request may be read to, kFuseBuffer bytes; empty when not even a close could be kept.
  // Async-signal-safe, as is keep().
  std::span<std::uint8_t> room() noexcept {
    if (ends_ == kMostEnds) return {};
    return std::span(bytes_).subspan(used_, kFuseBuffer);
  }
  // Keeps the first `size` bytes of room(), if they are not too many.
  bool keep(FuseMount& mount, std::size_t size, Kind kind) noexcept {
    const std::size_t taken = (size + 7) / 8 * 8;
    if (kind != Kind::Other) {
      if (ends_ == kMostEnds || taken > kEndSize) return false;
      ++ends_;
    } else {
      if (others_ == kMostOthers || other_bytes_ + taken > kMostBytes) return false;
      ++others_;
      other_bytes_ += taken;
    }
    requests_[count_++] = {&mount, used_, size, kind};
    used_ += taken;
    return true;
  }

  // Calls handle(FuseMount&, BytesView) for each in the order of their coming, and forgets them. Whether
  // there were any. Closes come first: the nodes are read one after the other, so that an open of one may
  // stand before the close of another that made room for it. Nothing of a file comes before its own close.
  template <class Handle>
  bool work_off(Handle handle) {
    if (count_ == 0) return false;
    for (const bool close : {true, false})
      for (const auto& request : std::span(requests_).first(count_))
        if ((request.kind == Kind::Close) == close)
          handle(*request.mount, std::span<const std::uint8_t>(bytes_).subspan(request.offset, request.size));
    count_ = used_ = ends_ = others_ = other_bytes_ = 0;
    return true;
  }

 private:
  struct Request {
    FuseMount* mount;
    std::size_t offset;
    std::size_t size;
    Kind kind;
  };

  std::size_t count_ = 0;
  std::size_t used_ = 0;  // bytes
  std::size_t ends_ = 0;
  std::size_t others_ = 0;
  std::size_t other_bytes_ = 0;
  // Not initialised: pages that are never used cost nothing.
  std::array<Request, kMostOthers + kMostEnds> requests_;
  alignas(8) std::array<std::uint8_t, kMostBytes + kMostEnds * kEndSize + kFuseBuffer> bytes_;
};

}  // namespace vtpm::engine
