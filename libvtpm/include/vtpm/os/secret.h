// SPDX-License-Identifier: Apache-2.0
// Secret: bytes that must not be copied, printed or left in memory.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

namespace vtpm {

// Owns a fixed number of bytes, locked in memory where RLIMIT_MEMLOCK allows and wiped on destruction.
class Secret {
 public:
  // `size` bytes of OpenSSL's private random generator.
  static Result<Secret> random(std::size_t size);
  // Takes the bytes over; the source is wiped.
  explicit Secret(Bytes&& bytes);
  Secret(Secret&& other) noexcept;
  Secret& operator=(Secret&& other) noexcept;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret();

  BytesView view() const noexcept { return bytes_; }

 private:
  void wipe() noexcept;
  Bytes bytes_;
};

}  // namespace vtpm
