// SPDX-License-Identifier: Apache-2.0
// The FUSE protocol as bytes, without a kernel.
#include "daemon/engine/fuse_session.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

using namespace vtpm;
using namespace vtpm::engine;

namespace {

// A file that is readable after a write. With `later` it answers writes and reads when it is told to.
class OneFile final : public FuseFile {
 public:
  void connect(FuseReplies& r) override { replies = &r; }
  int open(std::uint64_t& file) override {
    file = 42;
    return open_error;
  }
  void release(std::uint64_t file) override { released = file; }
  int write(const FuseWrite& request) override {
    if (request.file != 42) return EIO;
    last_write = request;
    written.assign(request.data.begin(), request.data.end());
    if (later && request.wait) return kLater;
    if (poller) replies->wake(*std::exchange(poller, std::nullopt));
    return 0;
  }
  int read(const FuseRead& request, Bytes& out) override {
    last_read = request;
    if (later && request.wait) return kLater;
    put(out, written);
    written.clear();
    return 0;
  }
  std::uint32_t poll(const FusePoll& request) override {
    const auto events = written.empty() ? POLLOUT : POLLIN;
    if ((request.events & events) == 0) poller = request.waiter;
    return events;
  }
  bool busy(std::uint64_t file) const override { return file == running; }
  bool cancels(std::uint64_t file, std::uint64_t unique) const override {
    return file == 0 ? unique == running : file == running;
  }
  void interrupt(std::uint64_t unique) override { interrupted = unique; }

  FuseReplies* replies = nullptr;
  std::optional<std::uint64_t> poller;
  std::uint64_t running = 1;
  bool later = false;
  int open_error = 0;
  std::uint64_t released = 0;
  std::uint64_t interrupted = 0;
  FuseWrite last_write{};
  FuseRead last_read{};
  Bytes written;
};

class Sent final : public FuseChannel {
 public:
  bool send(BytesView frame) override {
    frames.emplace_back(frame.begin(), frame.end());
    return true;
  }
  std::vector<Bytes> frames;
};

template <class T>
Bytes bytes_of(const T& value) {
  const auto* begin = reinterpret_cast<const std::uint8_t*>(&value);
  return {begin, begin + sizeof value};
}

struct Kernel {
  OneFile file;
  Sent sent;
  FuseSession session{file, sent};
  std::uint64_t unique = 100;

  // Sends a request; the frames that it caused.
  std::vector<Bytes> ask(std::uint32_t opcode, const Bytes& body = {}, std::uint64_t node = FUSE_ROOT_ID) {
    fuse_in_header head{};
    head.len = static_cast<std::uint32_t>(sizeof head + body.size());
    head.opcode = opcode;
    head.unique = ++unique;
    head.nodeid = node;
    Bytes request = bytes_of(head);
    put(request, body);
    sent.frames.clear();
    session.handle(request);
    return sent.frames;
  }
  // The only frame, which must be the reply.
  std::pair<int, Bytes> reply(std::uint32_t opcode, const Bytes& body = {},
                              std::uint64_t node = FUSE_ROOT_ID) {
    const auto frames = ask(opcode, body, node);
    REQUIRE(frames.size() == 1);
    fuse_out_header head{};
    REQUIRE(frames[0].size() >= sizeof head);
    std::memcpy(&head, frames[0].data(), sizeof head);
    CHECK(head.len == frames[0].size());
    CHECK(head.unique == unique);
    return {-head.error, Bytes(frames[0].begin() + sizeof head, frames[0].end())};
  }
};

template <class T>
T as(const Bytes& bytes) {
  REQUIRE(bytes.size() == sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

Bytes init(std::uint32_t major, std::uint32_t minor) {
  fuse_init_in in{};
  in.major = major;
  in.minor = minor;
  in.flags = ~0U;
  Bytes bytes = bytes_of(in);
  if (minor < 36) bytes.resize(16);
  return bytes;
}

Bytes write_request(std::uint32_t size, const Bytes& data, std::uint32_t flags = 0) {
  fuse_write_in in{};
  in.fh = 42;
  in.flags = flags;
  in.size = size;
  Bytes bytes = bytes_of(in);
  put(bytes, data);
  return bytes;
}

Bytes poll_request(std::uint32_t flags) {
  fuse_poll_in in{};
  in.fh = 42;
  in.kh = 7;
  in.flags = flags;
  return bytes_of(in);
}

}  // namespace

TEST_CASE("FUSE init: versions from 7.31 are accepted with the flags that we know") {
  Kernel kernel;
  const auto minor = GENERATE(31U, 38U, 44U);
  const auto frames = kernel.ask(FUSE_INIT, init(7, minor));
  const auto out = as<fuse_init_out>(Bytes(frames.at(0).begin() + sizeof(fuse_out_header), frames[0].end()));
  CHECK(out.major == 7);
  CHECK(out.max_write == kFuseMaxWrite);
  CHECK(out.flags == 0);
}

TEST_CASE("FUSE init: a kernel that runs writes side by side is told how large the file is") {
  Kernel kernel;
  const auto minor = GENERATE(38U, 39U);
  const auto frames = kernel.ask(FUSE_INIT, init(7, minor));
  REQUIRE(frames.size() == (minor == 39 ? 2 : 1));
  const auto open = as<fuse_open_out>(kernel.reply(FUSE_OPEN, bytes_of(fuse_open_in{})).second);
  CHECK(((open.open_flags & FOPEN_PARALLEL_DIRECT_WRITES) != 0) == (minor == 39));
  if (minor == 38) return;
  fuse_out_header head{};
  fuse_notify_store_out store{};
  REQUIRE(frames[1].size() == sizeof head + sizeof store + 1);
  std::memcpy(&head, frames[1].data(), sizeof head);
  std::memcpy(&store, frames[1].data() + sizeof head, sizeof store);
  CHECK(head.unique == 0);
  CHECK(head.error == FUSE_NOTIFY_STORE);
  CHECK(store.nodeid == FUSE_ROOT_ID);
  CHECK(store.offset + store.size == kFuseFileSize);
}

TEST_CASE("FUSE write: it waits for the command, but not with O_NONBLOCK, O_APPEND or an older kernel") {
  Kernel kernel;
  const auto waits = [&](std::uint32_t flags) {
    kernel.reply(FUSE_WRITE, write_request(1, Bytes{9}, flags));
    return kernel.file.last_write.wait;
  };
  CHECK_FALSE(waits(0));  // nobody knows which kernel it is
  (void)kernel.ask(FUSE_INIT, init(7, 38));
  CHECK_FALSE(waits(0));
  (void)kernel.ask(FUSE_INIT, init(7, 39));
  CHECK(waits(0));
  CHECK_FALSE(waits(O_NONBLOCK));
  CHECK_FALSE(waits(O_APPEND));
}

TEST_CASE("FUSE: a write and a read are answered later, by the number of the request") {
  Kernel kernel;
  (void)kernel.ask(FUSE_INIT, init(7, 39));
  kernel.file.later = true;
  CHECK(kernel.ask(FUSE_WRITE, write_request(3, Bytes{1, 2, 3})).empty());
  const auto write = kernel.unique;
  fuse_read_in read{};
  read.fh = 42;
  read.size = 10;
  CHECK(kernel.ask(FUSE_READ, bytes_of(read)).empty());
  CHECK(kernel.file.last_write.unique == write);
  kernel.file.replies->write_done(write, 0, 3);
  kernel.file.replies->read_done(kernel.unique, 0, Bytes{5, 6});
  kernel.file.replies->read_done(7, EINTR, Bytes{5, 6});
  REQUIRE(kernel.sent.frames.size() == 3);
  const auto head = [&](std::size_t i) {
    fuse_out_header h{};
    std::memcpy(&h, kernel.sent.frames[i].data(), sizeof h);
    CHECK(h.len == kernel.sent.frames[i].size());
    return h;
  };
  CHECK(head(0).unique == write);
  CHECK(head(0).len == sizeof(fuse_out_header) + sizeof(fuse_write_out));
  CHECK(head(1).unique == kernel.unique);
  CHECK(head(1).len == sizeof(fuse_out_header) + 2);
  CHECK(head(2).error == -EINTR);
  CHECK(head(2).len == sizeof(fuse_out_header));
}

TEST_CASE("FUSE interrupt: the file is told whose request it was") {
  Kernel kernel;
  fuse_interrupt_in in{};
  in.unique = 77;
  CHECK(kernel.ask(FUSE_INTERRUPT, bytes_of(in)).empty());
  CHECK(kernel.file.interrupted == 77);
}

TEST_CASE("FUSE init: older versions are refused, a newer major is told ours") {
  Kernel kernel;
  CHECK(kernel.reply(FUSE_INIT, init(7, 30)).first == EPROTO);
  CHECK(kernel.reply(FUSE_INIT, init(6, 40)).first == EPROTO);
  const auto [error, body] = kernel.reply(FUSE_INIT, init(8, 0));
  CHECK(error == 0);
  CHECK(as<fuse_init_out>(body).major == 7);
}

TEST_CASE("FUSE: a session that another process opened needs no init") {
  Kernel kernel;
  const auto [error, body] = kernel.reply(FUSE_OPEN, bytes_of(fuse_open_in{}));
  CHECK(error == 0);
  CHECK(as<fuse_open_out>(body).fh == 42);
}

TEST_CASE("FUSE attributes: a regular file, and nothing below it") {
  Kernel kernel;
  const auto [error, body] = kernel.reply(FUSE_GETATTR, bytes_of(fuse_getattr_in{}));
  CHECK(error == 0);
  CHECK(as<fuse_attr_out>(body).attr.mode == (S_IFREG | 0666));
  CHECK(kernel.reply(FUSE_GETATTR, {}, 2).first == ENOENT);
  CHECK(kernel.reply(FUSE_LOOKUP, Bytes{'a', 0}).first == ENOSYS);
}

TEST_CASE("FUSE open: the file's error is the reply") {
  Kernel kernel;
  kernel.file.open_error = EBUSY;
  const auto [error, body] = kernel.reply(FUSE_OPEN, bytes_of(fuse_open_in{}));
  CHECK(error == EBUSY);
  CHECK(body.empty());
}

TEST_CASE("FUSE write: sizes that lie are refused and reach no file") {
  Kernel kernel;
  CHECK(kernel.reply(FUSE_WRITE, write_request(4, Bytes(3))).first == EINVAL);
  CHECK(kernel.reply(FUSE_WRITE, write_request(2, Bytes(3))).first == EINVAL);
  CHECK(kernel.reply(FUSE_WRITE, write_request(0xffffffff, Bytes(3))).first == EINVAL);
  CHECK(kernel.reply(FUSE_WRITE, Bytes(8)).first == EINVAL);
  CHECK(kernel.file.written.empty());
  const auto [error, body] = kernel.reply(FUSE_WRITE, write_request(3, Bytes{1, 2, 3}));
  CHECK(error == 0);
  CHECK(as<fuse_write_out>(body).size == 3);
  CHECK(kernel.file.last_write.size == 3);
  CHECK(kernel.file.written == Bytes{1, 2, 3});
}

TEST_CASE("FUSE read: at most a buffer is asked of the file") {
  Kernel kernel;
  fuse_read_in in{};
  in.fh = 42;
  in.size = 0xffffffff;
  CHECK(kernel.reply(FUSE_READ, bytes_of(in)).first == 0);
  CHECK(kernel.file.last_read.size == 4096);
}

TEST_CASE("FUSE: a request whose body is too short is EINVAL, whichever it is") {
  Kernel kernel;
  const auto opcode = GENERATE(Catch::Generators::as<std::uint32_t>(), FUSE_INIT, FUSE_READ, FUSE_WRITE,
                               FUSE_POLL, FUSE_RELEASE);
  CHECK(kernel.reply(opcode, Bytes(4)).first == EINVAL);
}

TEST_CASE("FUSE: what is no request is ignored") {
  Kernel kernel;
  kernel.session.handle({});
  kernel.session.handle(Bytes(39));
  Bytes lying(60);
  lying[0] = 61;
  kernel.session.handle(lying);
  CHECK(kernel.sent.frames.empty());
}

TEST_CASE("FUSE: forget, batch forget and interrupt get no reply") {
  Kernel kernel;
  CHECK(kernel.ask(FUSE_FORGET, Bytes(8)).empty());
  CHECK(kernel.ask(FUSE_BATCH_FORGET, Bytes(8)).empty());
  CHECK(kernel.ask(FUSE_INTERRUPT, Bytes(8)).empty());
}

TEST_CASE("FUSE poll: who waits is woken by a change, once") {
  Kernel kernel;
  CHECK(as<fuse_poll_out>(kernel.reply(FUSE_POLL, poll_request(FUSE_POLL_SCHEDULE_NOTIFY)).second).revents ==
        POLLOUT);
  const auto frames = kernel.ask(FUSE_WRITE, write_request(1, Bytes{9}));
  REQUIRE(frames.size() == 2);
  fuse_out_header head{};
  std::memcpy(&head, frames[0].data(), sizeof head);
  CHECK(head.unique == 0);
  CHECK(head.error == FUSE_NOTIFY_POLL);
  std::uint64_t kh = 0;
  REQUIRE(frames[0].size() == sizeof head + sizeof kh);
  std::memcpy(&kh, frames[0].data() + sizeof head, sizeof kh);
  CHECK(kh == 7);
  CHECK(as<fuse_poll_out>(kernel.reply(FUSE_POLL, poll_request(0)).second).revents == POLLIN);
  CHECK(kernel.ask(FUSE_WRITE, write_request(1, Bytes{9})).size() == 1);
}

TEST_CASE("FUSE during a command: what can be answered is, a close and an interrupt cancel what is theirs") {
  Kernel kernel;
  kernel.file.running = 42;
  const auto glance = [&](std::uint32_t opcode, const Bytes& body) {
    fuse_in_header head{};
    head.len = static_cast<std::uint32_t>(sizeof head + body.size());
    head.opcode = opcode;
    head.unique = 9;
    Bytes request = bytes_of(head);
    put(request, body);
    return kernel.session.glance(request);
  };
  using Glance = FuseSession::Glance;
  CHECK(glance(FUSE_POLL, poll_request(FUSE_POLL_SCHEDULE_NOTIFY)) == Glance::Answered);
  fuse_read_in read{};
  read.fh = 42;
  CHECK(glance(FUSE_READ, bytes_of(read)) == Glance::Answered);
  CHECK(kernel.sent.frames.size() == 2);
  read.fh = 43;
  CHECK(glance(FUSE_READ, bytes_of(read)) == Glance::Keep);
  kernel.file.poller.reset();
  CHECK(glance(FUSE_WRITE, write_request(1, Bytes{1})) == Glance::Answered);  // by the file: it is busy
  CHECK(kernel.sent.frames.size() == 3);
  kernel.file.running = 41;
  CHECK(glance(FUSE_WRITE, write_request(1, Bytes{1})) == Glance::Keep);
  kernel.file.running = 42;
  fuse_release_in release{};
  release.fh = 42;
  CHECK(glance(FUSE_RELEASE, bytes_of(release)) == Glance::Cancel);
  release.fh = 43;
  CHECK(glance(FUSE_RELEASE, bytes_of(release)) == Glance::Keep);
  fuse_interrupt_in interrupt{42};
  CHECK(glance(FUSE_INTERRUPT, bytes_of(interrupt)) == Glance::Cancel);
  interrupt.unique = 43;
  CHECK(glance(FUSE_INTERRUPT, bytes_of(interrupt)) == Glance::Keep);
  CHECK(glance(FUSE_OPEN, bytes_of(fuse_open_in{})) == Glance::Keep);
  CHECK(kernel.session.glance(Bytes(3)) == Glance::Answered);
  CHECK(kernel.sent.frames.size() == 3);
  // What has nothing to do with a command.
  CHECK(glance(FUSE_GETATTR, bytes_of(fuse_getattr_in{})) == Glance::Answered);
  CHECK(glance(FUSE_STATFS, {}) == Glance::Answered);
  CHECK(glance(FUSE_LOOKUP, Bytes{'a', 0}) == Glance::Answered);
  CHECK(kernel.sent.frames.size() == 6);
}

TEST_CASE("FUSE during a command: for what there is no room is refused by a reply") {
  Kernel kernel;
  const auto refused = [&](std::uint32_t opcode) {
    fuse_in_header head{};
    head.len = sizeof head;
    head.opcode = opcode;
    head.unique = 9;
    kernel.sent.frames.clear();
    kernel.session.refuse(bytes_of(head));
    fuse_out_header reply{};
    REQUIRE(kernel.sent.frames.size() == 1);
    std::memcpy(&reply, kernel.sent.frames[0].data(), sizeof reply);
    CHECK(reply.unique == 9);
    return -reply.error;
  };
  CHECK(refused(FUSE_WRITE) == EBUSY);
  CHECK(refused(FUSE_OPEN) == EBUSY);
  CHECK(refused(FUSE_READ) == EAGAIN);
}

TEST_CASE(
    "FUSE: who polls while his command waits is answered when it has run, at the latest when asked to") {
  Kernel kernel;
  kernel.file.running = 42;
  CHECK(kernel.ask(FUSE_POLL, poll_request(FUSE_POLL_SCHEDULE_NOTIFY)).empty());
  const auto asked = kernel.unique;
  CHECK(kernel.ask(FUSE_WRITE, write_request(1, Bytes{9})).size() == 1);  // "it has run"
  kernel.sent.frames.clear();
  kernel.session.answer_polls();
  REQUIRE(kernel.sent.frames.size() == 1);
  fuse_out_header head{};
  std::memcpy(&head, kernel.sent.frames[0].data(), sizeof head);
  CHECK(head.unique == asked);
  CHECK(as<fuse_poll_out>(Bytes(kernel.sent.frames[0].begin() + sizeof head, kernel.sent.frames[0].end()))
            .revents == POLLIN);
  kernel.session.answer_polls();
  CHECK(kernel.sent.frames.size() == 1);  // once

  // Many who ask are answered at once, and none is lost.
  for (int i = 0; i < 8; ++i)
    CHECK(kernel.ask(FUSE_POLL, poll_request(0)).empty());
  CHECK(kernel.ask(FUSE_POLL, poll_request(0)).size() == 1);
  kernel.sent.frames.clear();
  kernel.session.answer_polls();
  CHECK(kernel.sent.frames.size() == 8);
}

TEST_CASE("FUSE: a write that another engine had is told from others") {
  Kernel kernel;
  kernel.unique = (std::uint64_t{1} << 63) + 10;
  CHECK(kernel.reply(FUSE_WRITE, write_request(1, Bytes{9})).first == 0);
  CHECK(kernel.file.last_write.resent);
  kernel.unique = 10;
  CHECK(kernel.reply(FUSE_WRITE, write_request(1, Bytes{9})).first == 0);
  CHECK_FALSE(kernel.file.last_write.resent);
}

TEST_CASE("FUSE release: the file is told") {
  Kernel kernel;
  fuse_release_in in{};
  in.fh = 42;
  CHECK(kernel.reply(FUSE_RELEASE, bytes_of(in)).first == 0);
  CHECK(kernel.file.released == 42);
}
