// SPDX-License-Identifier: Apache-2.0
// Arguments whose values are checked before anything is done. Errors are Malformed: wrong usage.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <sys/types.h>

#include <string>

namespace vtpm::cli {

// A verifier's nonce: hexadecimal digits of either case, 8 to 64 bytes.
Result<Bytes> nonce_from(const std::string& text);
// A SHA-256 digest: 64 hexadecimal digits of either case.
Result<Bytes> sha256_from(const std::string& text);
// A value of `option`: decimal digits.
Result<std::uint64_t> number_from(const std::string& option, const std::string& text);

// A file's mode: 3 or 4 octal digits, at most 0777.
Result<mode_t> mode_from(const std::string& option, const std::string& text);

// Replaces a file atomically, or writes to what is there if it is a device or a pipe. Errors are
// Configuration. A new file has `mode`, whatever the umask.
Result<> write_output(const std::string& path, std::string_view text, mode_t mode = 0644);
// The same; to standard output for "-" and an empty path.
Result<> write_document(const std::string& path, const std::string& text);
// The whole of a file, or of standard input for "-". One that cannot be read: Configuration.
Result<std::string> read_input(const std::string& path, std::size_t limit);

}  // namespace vtpm::cli
