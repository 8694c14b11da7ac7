// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/fuse_session.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

namespace vtpm::engine {
namespace {

// FOPEN_STREAM, the lowest that the engine relies on, is as old as 7.31.
constexpr std::uint32_t kOldestMinor = 31;
constexpr std::uint32_t kMaxRead = 4096;
constexpr std::size_t kOldInitSize = 16;  // fuse_init_in before 7.36

// The leading bytes of `bytes` as a T, zero-filled when there are fewer but at least `least`.
template <class T>
std::optional<T> as(BytesView bytes, std::size_t least = sizeof(T)) {
  if (bytes.size() < least) return std::nullopt;
  T value{};
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
  return value;
}

template <class T>
BytesView bytes_of(const T& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

}  // namespace

struct FuseSession::Request {
  fuse_in_header head;
  BytesView body;
};

struct FuseSession::Row {
  std::uint32_t opcode;
  void (FuseSession::*handler)(const Request&);
};

// Everything that the node knows. Other opcodes are ENOSYS, which the kernel remembers or translates.
const FuseSession::Row FuseSession::kRows[] = {
    {FUSE_WRITE, &FuseSession::write},        {FUSE_READ, &FuseSession::read},
    {FUSE_POLL, &FuseSession::poll},          {FUSE_OPEN, &FuseSession::open},
    {FUSE_RELEASE, &FuseSession::release},    {FUSE_GETATTR, &FuseSession::attributes},
    {FUSE_SETATTR, &FuseSession::attributes},  // truncate and chmod succeed and change nothing
    {FUSE_FLUSH, &FuseSession::accept},       {FUSE_FSYNC, &FuseSession::accept},
    {FUSE_ACCESS, &FuseSession::accept},      {FUSE_STATFS, &FuseSession::statfs},
    {FUSE_INIT, &FuseSession::init},          {FUSE_DESTROY, &FuseSession::accept},
    {FUSE_FORGET, &FuseSession::ignore},      {FUSE_BATCH_FORGET, &FuseSession::ignore},
    {FUSE_INTERRUPT, &FuseSession::ignore},  // commands are short; the interrupted request is answered anyway
};

void FuseSession::handle(BytesView bytes) {
  const auto head = as<fuse_in_header>(bytes);
  if (!head || head->len != bytes.size()) return;
  const Request request{*head, bytes.subspan(sizeof *head)};
  const auto row = std::find_if(std::begin(kRows), std::end(kRows),
                                [&](const Row& r) { return r.opcode == request.head.opcode; });
  if (row == std::end(kRows)) return reply(request, ENOSYS);
  (this->*row->handler)(request);
}

void FuseSession::reply(const Request& request, int error, BytesView body) {
  if (error != 0) body = {};
  const fuse_out_header head{static_cast<std::uint32_t>(sizeof(fuse_out_header) + body.size()), -error,
                             request.head.unique};
  Bytes frame;
  frame.reserve(head.len);
  put(frame, bytes_of(head));
  put(frame, body);
  channel_.send(frame);
}

void FuseSession::init(const Request& request) {
  const auto in = as<fuse_init_in>(request.body, 8);
  if (!in) return reply(request, EINVAL);
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  // A newer major: say ours, and the kernel asks again (linux/fuse.h, "Protocol changelog").
  if (in->major > FUSE_KERNEL_VERSION) return reply(request, 0, bytes_of(out));
  if (in->major < FUSE_KERNEL_VERSION || in->minor < kOldestMinor || request.body.size() < kOldInitSize)
    return reply(request, EPROTO);
  out.flags = in->flags & FUSE_ATOMIC_O_TRUNC;
  out.max_write = kFuseMaxWrite;
  out.max_background = 16;
  out.congestion_threshold = 12;
  out.time_gran = 1;
  reply(request, 0, bytes_of(out));
}

void FuseSession::attributes(const Request& request) {
  if (request.head.nodeid != FUSE_ROOT_ID) return reply(request, ENOENT);
  fuse_attr_out out{};
  out.attr.ino = FUSE_ROOT_ID;
  out.attr.mode = S_IFREG | 0666;
  out.attr.nlink = 1;
  out.attr.blksize = 4096;
  reply(request, 0, bytes_of(out));
}

void FuseSession::open(const Request& request) {
  if (request.head.nodeid != FUSE_ROOT_ID) return reply(request, ENOENT);
  fuse_open_out out{};
  const int error = file_.open(out.fh);
  // STREAM: every write(2) starts at offset 0, so that the later parts of a long one can be told apart.
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM | FOPEN_NOFLUSH;
  reply(request, error, bytes_of(out));
}

void FuseSession::read(const Request& request) {
  const auto in = as<fuse_read_in>(request.body);
  if (!in) return reply(request, EINVAL);
  Bytes out;
  const int error = file_.read(in->fh, std::min(in->size, kMaxRead), out);
  reply(request, error, out);
  wake_poller();
}

void FuseSession::write(const Request& request) {
  const auto in = as<fuse_write_in>(request.body);
  if (!in || in->size != request.body.size() - sizeof *in) return reply(request, EINVAL);
  const int error = file_.write(in->fh, in->offset, request.body.subspan(sizeof *in));
  const fuse_write_out out{in->size, 0};
  reply(request, error, bytes_of(out));
  wake_poller();
}

void FuseSession::release(const Request& request) {
  const auto in = as<fuse_release_in>(request.body);
  if (!in) return reply(request, EINVAL);
  file_.release(in->fh);
  poller_.reset();
  reply(request, 0);
}

void FuseSession::poll(const Request& request) {
  const auto in = as<fuse_poll_in>(request.body);
  if (!in) return reply(request, EINVAL);
  const fuse_poll_out out{file_.poll(in->fh), 0};
  // Who finds what it wants does not wait, whatever the kernel offers.
  if ((in->flags & FUSE_POLL_SCHEDULE_NOTIFY) != 0 && (out.revents & in->events) == 0) poller_ = in->kh;
  reply(request, 0, bytes_of(out));
}

// Has the kernel ask again. A wake-up too many is harmless, one too few is a hang: no state is compared.
void FuseSession::wake_poller() {
  if (!poller_) return;
  const fuse_notify_poll_wakeup_out out{*std::exchange(poller_, std::nullopt)};
  const fuse_out_header head{sizeof head + sizeof out, FUSE_NOTIFY_POLL, 0};
  Bytes frame;
  put(frame, bytes_of(head));
  put(frame, bytes_of(out));
  channel_.send(frame);
}

void FuseSession::statfs(const Request& request) {
  fuse_statfs_out out{};
  out.st.bsize = 4096;
  out.st.namelen = 255;
  reply(request, 0, bytes_of(out));
}

void FuseSession::accept(const Request& request) {
  reply(request, 0);
}

void FuseSession::ignore(const Request&) {}

}  // namespace vtpm::engine
