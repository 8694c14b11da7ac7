// SPDX-License-Identifier: Apache-2.0
#include "tests/fault/slots/faulty_disk.h"

#include <algorithm>

namespace vtpm::test {
namespace {

Error failure(std::string_view call, int errno_value) {
  return errno_error(call, errno_value);
}

class FrozenFile final : public engine::SlotFile {
 public:
  explicit FrozenFile(Bytes content) : content_(std::move(content)) {}
  Result<Bytes> read_at(std::uint64_t offset, std::size_t most) override {
    const BytesView rest = BytesView(content_).subspan(std::min<std::size_t>(offset, content_.size()));
    const BytesView part = rest.first(std::min(most, rest.size()));
    return Bytes(part.begin(), part.end());
  }
  Result<std::size_t> write_at(std::uint64_t, BytesView) override { return failure("pwrite", EROFS); }
  Result<> sync() override { return failure("fdatasync", EROFS); }

 private:
  Bytes content_;
};

}  // namespace

class FaultyDisk::File final : public engine::SlotFile {
 public:
  File(FaultyDisk& disk, Content& content) : disk_(disk), content_(content) {}

  Result<Bytes> read_at(std::uint64_t offset, std::size_t most) override {
    return FrozenFile(content_.cache).read_at(offset, most);
  }

  Result<std::size_t> write_at(std::uint64_t offset, BytesView bytes) override {
    const Fault fault = disk_.next();
    if (fault == Fault::NoSpace) return failure("pwrite", ENOSPC);
    if (fault == Fault::WriteError) return failure("pwrite", EIO);
    if (fault == Fault::WroteZero) return std::size_t{0};
    if (fault == Fault::HalfWritten) disk_.plan_.push_front(Fault::WriteError);
    const bool half = fault == Fault::ShortWrite || fault == Fault::HalfWritten;
    const BytesView written = bytes.first(half ? bytes.size() / 2 : bytes.size());
    const auto end = static_cast<std::size_t>(offset) + written.size();
    if (content_.cache.size() < end) content_.cache.resize(end);
    std::ranges::copy(written, content_.cache.begin() + static_cast<std::ptrdiff_t>(offset));
    const bool clean = content_.dirty_begin == content_.dirty_end;
    content_.dirty_begin =
        clean ? static_cast<std::size_t>(offset) : std::min<std::size_t>(content_.dirty_begin, offset);
    content_.dirty_end = clean ? end : std::max(content_.dirty_end, end);
    return written.size();
  }

  Result<> sync() override {
    const Fault fault = disk_.next();
    std::size_t end = content_.dirty_end;
    if (fault == Fault::SyncLost || fault == Fault::WriteError) end = content_.dirty_begin;
    if (fault == Fault::SyncHalf) end = (content_.dirty_begin + content_.dirty_end) / 2;
    if (content_.disk.size() < end) content_.disk.resize(end);
    std::copy(content_.cache.begin() + static_cast<std::ptrdiff_t>(content_.dirty_begin),
              content_.cache.begin() + static_cast<std::ptrdiff_t>(end),
              content_.disk.begin() + static_cast<std::ptrdiff_t>(content_.dirty_begin));
    content_.dirty_begin = content_.dirty_end = 0;
    if (fault == Fault::None || fault == Fault::ShortWrite) return {};
    return failure("fdatasync", EIO);
  }

 private:
  FaultyDisk& disk_;
  Content& content_;
};

Fault FaultyDisk::next() {
  ++calls_;
  if (dead_) return Fault::WriteError;
  if (plan_.empty()) return Fault::None;
  const Fault fault = plan_.front();
  plan_.pop_front();
  return fault;
}

std::unique_ptr<engine::SlotFile> FaultyDisk::open(std::size_t file) {
  return std::make_unique<File>(*this, files_[file]);
}

std::unique_ptr<engine::SlotFile> frozen(Bytes content) {
  return std::make_unique<FrozenFile>(std::move(content));
}

}  // namespace vtpm::test
