// SPDX-License-Identifier: Apache-2.0
// The FUSE protocol of a device node, fed a sequence of requests: {length u16, request}. Every reply must be
// well formed, also those that come later, and nothing larger than was asked may be written to or read from
// the file.
#include "daemon/engine/fuse_session.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace {

using namespace vtpm;
using namespace vtpm::engine;

// Some files whose requests are answered at once or later, as their numbers say.
class File final : public FuseFile {
 public:
  void connect(FuseReplies& replies) override { replies_ = &replies; }
  int open(std::uint64_t& file) override {
    file = ++last_;
    return last_ > 8 ? EBUSY : 0;
  }
  void release(std::uint64_t) override {}
  int write(const FuseWrite& request) override {
    if (request.size != request.data.size()) std::abort();
    if (request.file < pollers_.size()) wake(request.file);
    if (!request.wait || request.unique % 2 == 0) return 0;
    writes_.push_back(request);
    return kLater;
  }
  int read(const FuseRead& request, Bytes& out) override {
    if (request.size > 4096) std::abort();
    if (request.wait && request.unique % 2 != 0) {
      reads_.push_back(request);
      return kLater;
    }
    out.assign(request.size, 0);
    return request.unique % 3 == 0 ? EAGAIN : 0;
  }
  std::uint32_t poll(const FusePoll& request) override {
    if (request.file < pollers_.size() && request.waiter) pollers_[request.file] = *request.waiter;
    return request.file % 2 == 0 ? POLLIN : 0;
  }
  bool busy(std::uint64_t file) const override { return file == 1; }
  bool cancels(std::uint64_t file, std::uint64_t unique) const override {
    return file == 1 || unique % 5 == 0;
  }
  void interrupt(std::uint64_t unique) override {
    std::erase_if(writes_, [&](const FuseWrite& request) {
      if (request.unique == unique) replies_->write_done(unique, EINTR, 0);
      return request.unique == unique;
    });
  }
  // Answers what waits.
  void finish() {
    for (const auto& request : writes_)
      replies_->write_done(request.unique, 0, request.size);
    for (const auto& request : reads_)
      replies_->read_done(request.unique, 0, Bytes(request.size));
    for (std::size_t file = 0; file < pollers_.size(); ++file)
      wake(file);
  }

 private:
  void wake(std::size_t file) {
    if (pollers_[file] != 0) replies_->wake(std::exchange(pollers_[file], 0));
  }

  FuseReplies* replies_ = nullptr;
  std::uint64_t last_ = 0;
  std::array<std::uint64_t, 9> pollers_{};
  std::vector<FuseWrite> writes_;
  std::vector<FuseRead> reads_;
};

class Channel final : public FuseChannel {
 public:
  bool send(BytesView frame) override {
    fuse_out_header head{};
    if (frame.size() < sizeof head) std::abort();
    std::memcpy(&head, frame.data(), sizeof head);
    const bool notification =
        head.unique == 0 && (head.error == FUSE_NOTIFY_POLL || head.error == FUSE_NOTIFY_STORE);
    if (head.len != frame.size()) std::abort();
    if (!notification && (head.error > 0 || head.error < -4095)) std::abort();
    if (!notification && head.error != 0 && frame.size() != sizeof head) std::abort();
    return true;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  File file;
  Channel channel;
  FuseSession session(file, channel);
  BytesView rest(bytes, size);
  while (rest.size() >= 2) {
    const std::size_t length = std::min<std::size_t>(get_be<std::uint16_t>(rest), rest.size() - 2);
    const auto request = rest.subspan(2, length);
    // Every third as if a command ran.
    if (length % 3 != 0 || session.glance(request) != FuseSession::Glance::Answered) session.handle(request);
    if (length % 5 == 0) session.answer_polls();
    rest = rest.subspan(2 + length);
  }
  file.finish();
  return 0;
}
