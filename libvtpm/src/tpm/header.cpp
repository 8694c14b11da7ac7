// SPDX-License-Identifier: Apache-2.0
#include <vtpm/tpm/header.h>

namespace vtpm::tpm {
namespace {

constexpr unsigned kMaxLocality = 4;

Header read_header(BytesView bytes) noexcept {
  return {get_be<std::uint16_t>(bytes, 0), get_be<std::uint32_t>(bytes, 2), get_be<std::uint32_t>(bytes, 6)};
}

}  // namespace

CommandCheck check_command(BytesView command) noexcept {
  if (command.size() < kHeaderSize || command.size() > kBufferMax) return {ResponseCode::CommandSize, {}};
  const Header header = read_header(command);
  if (header.size != command.size()) return {ResponseCode::CommandSize, {}};
  const Tag tag{header.tag};
  if (tag != Tag::NoSessions && tag != Tag::Sessions) return {ResponseCode::BadTag, {}};
  return {ResponseCode::Success, header};
}

Result<Header> parse_response(BytesView response) {
  if (response.size() < kHeaderSize)
    return Error(ErrorCode::Malformed,
                 "a response of " + std::to_string(response.size()) + " bytes has no header");
  const Header header = read_header(response);
  if (header.size != response.size())
    return Error(ErrorCode::Malformed, "a response of " + std::to_string(response.size()) +
                                           " bytes says that it has " + std::to_string(header.size));
  return header;
}

Bytes error_response(ResponseCode code) {
  // Part 1, 18.3: a failed command is answered without sessions; TPM_RC_BAD_TAG alone has a TPM 1.2 tag
  // (Part 3, 5.2), so that a driver for 1.2 understands it.
  const auto tag = code == ResponseCode::BadTag ? Tag::RspCommand : Tag::NoSessions;
  Bytes response;
  put_be(response, static_cast<std::uint16_t>(tag));
  put_be(response, kHeaderSize);
  put_be(response, static_cast<std::uint32_t>(code));
  return response;
}

Result<Locality> Locality::make(unsigned value) {
  if (value > kMaxLocality)
    return Error(ErrorCode::Malformed, "locality " + std::to_string(value) + " is not between 0 and 4");
  return Locality(static_cast<std::uint8_t>(value));
}

}  // namespace vtpm::tpm
