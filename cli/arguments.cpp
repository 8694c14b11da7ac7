// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"

#include "cli/output.h"

#include <vtpm/evidence/evidence.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

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

Result<std::uint64_t> number_from(const std::string& option, const std::string& text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc() || parsed != end)
    return Error(ErrorCode::Malformed, option + ": '" + text + "' is not a number");
  return value;
}

Result<mode_t> mode_from(const std::string& option, const std::string& text) {
  mode_t mode = 0;
  const char* const end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, mode, 8);
  const bool digits = error == std::errc() && parsed == end && (text.size() == 3 || text.size() == 4);
  if (digits && mode <= 0777) return mode;
  return Error(ErrorCode::Malformed, option + ": '" + text + "' is not a mode of three octal digits, as 660");
}

Result<Bytes> sha256_from(const std::string& text) {
  VTPM_TRY(auto bytes, hex_of_either_case("--digest", text));
  if (bytes.size() != 32)
    return Error(ErrorCode::Malformed, "--digest must be a SHA-256 digest: 64 hexadecimal digits");
  return bytes;
}

Result<> write_output(const std::string& path, std::string_view text, mode_t mode) {
  struct stat status {};
  const bool special = ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
  // A device or a pipe is written to; a file is replaced, so that nobody reads half of it.
  const UniqueFd fd(special ? ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY) : -1);
  if (special && !fd) return Error(ErrorCode::Configuration, errno_error(path, errno).context);
  auto written = special ? write_all(fd.get(), as_bytes(text)) : replace_file(path, as_bytes(text), mode);
  if (!written) return Error(ErrorCode::Configuration, written.error().context);
  return {};
}

Result<> write_document(const std::string& path, const std::string& text) {
  if (path.empty() || path == "-") return print(text + "\n");
  return write_output(path, text);
}

Result<std::string> read_input(const std::string& path, std::size_t limit) {
  auto bytes = path == "-" ? read_all(STDIN_FILENO, limit) : read_file(path, limit);
  // A file that cannot be read is the caller's to correct, not a refusal or a missing instance.
  if (!bytes) return Error(ErrorCode::Configuration, bytes.error().context);
  return std::string(as_text(*bytes));
}

}  // namespace vtpm::cli
