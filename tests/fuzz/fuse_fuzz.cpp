// SPDX-License-Identifier: Apache-2.0
// The FUSE protocol of a device node, fed a sequence of requests: {length u16, request}. Every reply must be
// well formed, and nothing larger than was asked may be written to or read from the file.
#include "daemon/engine/fuse_session.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace {

using namespace vtpm;
using namespace vtpm::engine;

class File final : public FuseFile {
 public:
  int open(std::uint64_t& file) override {
    file = ++last_;
    return 0;
  }
  void release(std::uint64_t) override {}
  int write(std::uint64_t, std::uint64_t, BytesView data) override {
    pending_.assign(data.begin(), data.end());
    return 0;
  }
  int read(std::uint64_t, std::uint32_t size, Bytes& out) override {
    if (size > 4096) std::abort();
    out.assign(size, 0);
    return 0;
  }
  std::uint32_t poll(std::uint64_t) override { return pending_.empty() ? 4 : 1; }

 private:
  std::uint64_t last_ = 0;
  Bytes pending_;
};

class Channel final : public FuseChannel {
 public:
  void send(BytesView frame) override {
    fuse_out_header head{};
    if (frame.size() < sizeof head) std::abort();
    std::memcpy(&head, frame.data(), sizeof head);
    const bool notification = head.unique == 0 && head.error == FUSE_NOTIFY_POLL;
    if (head.len != frame.size()) std::abort();
    if (!notification && (head.error > 0 || head.error < -4095)) std::abort();
    if (!notification && head.error != 0 && frame.size() != sizeof head) std::abort();
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
    session.handle(rest.subspan(2, length));
    rest = rest.subspan(2 + length);
  }
  return 0;
}
