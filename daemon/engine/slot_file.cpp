// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/slot_file.h"

#include <unistd.h>

#include <cerrno>

namespace vtpm::engine {
namespace {

class OpenSlotFile final : public SlotFile {
 public:
  explicit OpenSlotFile(UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  Result<Bytes> read_at(std::uint64_t offset, std::size_t most) override {
    Bytes bytes(most);
    const ssize_t n =
        repeated([&] { return ::pread(fd_.get(), bytes.data(), most, static_cast<off_t>(offset)); });
    if (n < 0) return errno_error("pread", errno);
    bytes.resize(static_cast<std::size_t>(n));
    return bytes;
  }

  Result<std::size_t> write_at(std::uint64_t offset, BytesView bytes) override {
    const ssize_t n =
        repeated([&] { return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (n < 0) return errno_error("pwrite", errno);
    return static_cast<std::size_t>(n);
  }

  Result<> sync() override {
    if (repeated([&] { return ssize_t{::fdatasync(fd_.get())}; }) != 0)
      return errno_error("fdatasync", errno);
    return {};
  }

 private:
  template <class Call>
  static ssize_t repeated(const Call& call) {
    for (;;) {
      const ssize_t n = call();
      if (n >= 0 || errno != EINTR) return n;
    }
  }

  UniqueFd fd_;
};

}  // namespace

std::unique_ptr<SlotFile> slot_file(UniqueFd fd) {
  return std::make_unique<OpenSlotFile>(std::move(fd));
}

}  // namespace vtpm::engine
