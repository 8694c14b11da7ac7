// SPDX-License-Identifier: Apache-2.0
// The system calls on a slot file, behind an interface so that tests can make each of them fail.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <memory>

namespace vtpm::engine {

class SlotFile {
 public:
  virtual ~SlotFile() = default;
  // pread(2): at most `most` bytes from `offset`; none at the end.
  virtual Result<Bytes> read_at(std::uint64_t offset, std::size_t most) = 0;
  // pwrite(2): the number of bytes written, which may be fewer than given.
  virtual Result<std::size_t> write_at(std::uint64_t offset, BytesView bytes) = 0;
  // fdatasync(2).
  virtual Result<> sync() = 0;
};

// An open file. Interrupted calls are repeated.
std::unique_ptr<SlotFile> slot_file(UniqueFd fd);

}  // namespace vtpm::engine
