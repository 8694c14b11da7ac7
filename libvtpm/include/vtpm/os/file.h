// SPDX-License-Identifier: Apache-2.0
// Whole small files, read with a bound and replaced atomically.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

namespace vtpm {

// The whole of an open file or pipe, from its current offset, at most `limit` bytes (Malformed beyond).
// Blocks.
Result<Bytes> read_all(int fd, std::size_t limit);
// The whole file at `path`. Errors name the path.
Result<Bytes> read_file(const std::string& path, std::size_t limit);
// Writes all of `bytes`. Blocks.
Result<> write_all(int fd, BytesView bytes);
// Replaces `path` with `bytes`: a temporary file beside it with `mode`, fdatasync, rename, fsync of the
// directory. After a crash the file is the old or the new one.
Result<> replace_file(const std::string& path, BytesView bytes, mode_t mode);

}  // namespace vtpm
