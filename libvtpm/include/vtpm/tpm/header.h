// SPDX-License-Identifier: Apache-2.0
// Command and response headers (TCG TPM 2.0 Library Part 1, 18): {tag u16, size u32, code u32}, big-endian.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/constants.h>

namespace vtpm::tpm {

struct Header {
  std::uint16_t tag;
  std::uint32_t size;  // of the whole command or response, header included, bytes
  std::uint32_t code;  // TPM_CC or TPM_RC
};

// The header of a complete command as a client wrote it. nullopt-like outcomes are response codes, since the
// client is answered by the TPM's rules: Success, or CommandSize when shorter than a header, longer than
// kBufferMax or when its size field disagrees with its length; BadTag for an unknown tag.
struct CommandCheck {
  ResponseCode code;
  Header header;  // valid when code is Success
};
CommandCheck check_command(BytesView command) noexcept;

// The header of a complete response. Shorter than 10 bytes or a size field that disagrees: Malformed.
Result<Header> parse_response(BytesView response);

// A response that is only a header.
Bytes error_response(ResponseCode code);

// A locality, 0 to 4.
class Locality {
 public:
  static Result<Locality> make(unsigned value);
  static constexpr Locality tenant() noexcept { return Locality(0); }
  static constexpr Locality supervisor() noexcept { return Locality(3); }
  constexpr std::uint8_t value() const noexcept { return value_; }

 private:
  constexpr explicit Locality(std::uint8_t value) noexcept : value_(value) {}
  std::uint8_t value_;
};

}  // namespace vtpm::tpm
