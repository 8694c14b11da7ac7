// SPDX-License-Identifier: Apache-2.0
// KeptRequests: FUSE requests that a signal handler has read, for later. All of its memory is there before.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace vtpm::engine {

class FuseMount;

class KeptRequests {
 public:
  struct Request {
    FuseMount* mount;
    std::size_t offset;
    std::size_t size;
    bool close;
  };

  // Where the next request may be read to; empty when there is no place. Async-signal-safe, as is keep().
  std::span<std::uint8_t> room() noexcept {
    if (count_ == requests_.size()) return {};
    return std::span(bytes_).subspan(used_);
  }
  // Keeps the first `size` bytes of room(). `close`: the end of an open file.
  void keep(FuseMount& mount, std::size_t size, bool close) noexcept {
    requests_[count_++] = {&mount, used_, size, close};
    used_ += size;
    used_ += -used_ % 8;
  }

  // Calls handle(FuseMount&, BytesView) for each in the order of their coming, and forgets them. Whether
  // there were any. Closes come first: the nodes are read one after the other, so that an open of one may
  // stand before the close of another that made room for it. Nothing of a file comes before its own close.
  template <class Handle>
  bool work_off(Handle handle) {
    if (count_ == 0) return false;
    for (const bool close : {true, false})
      for (const auto& request : std::span(requests_).first(count_))
        if (request.close == close)
          handle(*request.mount, std::span<const std::uint8_t>(bytes_).subspan(request.offset, request.size));
    count_ = used_ = 0;
    return true;
  }

 private:
  std::array<Request, 1024> requests_{};
  std::size_t count_ = 0;
  std::size_t used_ = 0;
  // Not initialised: pages that are never used cost nothing.
  alignas(8) std::array<std::uint8_t, 256 * 1024> bytes_;
};

}  // namespace vtpm::engine
