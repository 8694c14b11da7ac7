// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"

#include <vtpm/evidence/evidence.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <unistd.h>

namespace vtpm::cli {
namespace {

Result<Bytes> hex_of_either_case(const std::string& option, std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  auto bytes = from_hex(text);
  if (!bytes) return Error(ErrorCode::Malformed, option + " must be an even number of hexadecimal digits");
  return bytes;
}

}  // namespace

Result<Bytes> nonce_from(const std::string& text) {
  VTPM_TRY(auto bytes, hex_of_either_case("--nonce", text));
  if (bytes.size() < evidence::kMinNonce || bytes.size() > evidence::kMaxNonce)
    return Error(ErrorCode::Malformed, "--nonce must have " + std::to_string(evidence::kMinNonce) + " to " +
                                           std::to_string(evidence::kMaxNonce) + " bytes, two digits each");
  return bytes;
}

Result<Bytes> sha256_from(const std::string& text) {
  VTPM_TRY(auto bytes, hex_of_either_case("--digest", text));
  if (bytes.size() != 32)
    return Error(ErrorCode::Malformed, "--digest must be a SHA-256 digest: 64 hexadecimal digits");
  return bytes;
}

Result<std::string> read_input(const std::string& path, std::size_t limit) {
  auto bytes = path == "-" ? read_all(STDIN_FILENO, limit) : read_file(path, limit);
  if (!bytes) return std::move(bytes).error();
  return std::string(as_text(*bytes));
}

}  // namespace vtpm::cli
