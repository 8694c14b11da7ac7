// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/fuse_session.h"

#include "daemon/engine/fatal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

namespace vtpm::engine {
namespace {

// FOPEN_STREAM, the lowest that the engine relies on, is as old as 7.31.
constexpr std::uint32_t kOldestMinor = 31;
// FOPEN_PARALLEL_DIRECT_WRITES came with Linux 6.2 and 7.38; but 7.38 is also said by stable kernels without
// it.
constexpr std::uint32_t kParallelMinor = 39;
// Of Linux 6.9 (include/uapi/linux/fuse.h: FUSE_NOTIFY_RESEND, FUSE_UNIQUE_RESEND), newer than Debian 12's
// header. The kernel resends whether or not FUSE_HAS_RESEND was agreed on.
constexpr std::int32_t kNotifyResend = 7;
constexpr std::uint64_t kUniqueResend = std::uint64_t{1} << 63;
// Which handles polls wait under only the dead engine knew. The kernel counts them, one for each open; to
// wake one that is not there does nothing.
constexpr std::uint64_t kHandlesWoken = 65536;
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
  bool any_time = false;  // it has nothing to do with a command: async-signal-safe
};

// Everything that the node knows. Other opcodes are ENOSYS, which the kernel remembers or translates.
const FuseSession::Row FuseSession::kRows[] = {
    {FUSE_WRITE, &FuseSession::write},
    {FUSE_READ, &FuseSession::read},
    {FUSE_POLL, &FuseSession::poll},
    {FUSE_OPEN, &FuseSession::open},
    {FUSE_RELEASE, &FuseSession::release},
    {FUSE_GETATTR, &FuseSession::attributes, true},
    {FUSE_SETATTR, &FuseSession::attributes, true},  // truncate and chmod succeed and change nothing
    {FUSE_FLUSH, &FuseSession::accept, true},
    {FUSE_FSYNC, &FuseSession::accept, true},
    {FUSE_ACCESS, &FuseSession::accept, true},
    {FUSE_STATFS, &FuseSession::statfs, true},
    {FUSE_INIT, &FuseSession::init},
    {FUSE_DESTROY, &FuseSession::accept, true},
    {FUSE_FORGET, &FuseSession::ignore, true},
    {FUSE_BATCH_FORGET, &FuseSession::ignore, true},
    {FUSE_INTERRUPT, &FuseSession::interrupt},
};

const FuseSession::Row* FuseSession::row_of(std::uint32_t opcode) noexcept {
  const auto row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& r) { return r.opcode == opcode; });
  return row == std::end(kRows) ? nullptr : &*row;
}

void FuseSession::handle(BytesView bytes) {
  const auto head = as<fuse_in_header>(bytes);
  if (!head || head->len != bytes.size()) return;
  const Row* row = row_of(head->opcode);
  if (row == nullptr) return reply(head->unique, ENOSYS);
  (this->*row->handler)({*head, bytes.subspan(sizeof *head)});
}

// Whatever can be answered in a signal handler is: until the command has run, a poll would otherwise not be a
// wait that a timeout or a signal ends, and what is kept is in the way of those that must be.
FuseSession::Glance FuseSession::glance(BytesView bytes) {
  const auto head = as<fuse_in_header>(bytes);
  if (!head || head->len != bytes.size()) return Glance::Answered;
  const Request request{*head, bytes.subspan(sizeof *head)};
  const Row* row = row_of(head->opcode);
  if (row == nullptr || row->any_time) {
    handle(bytes);
    return Glance::Answered;
  }
  switch (head->opcode) {
    case FUSE_POLL: {
      const auto in = as<fuse_poll_in>(request.body);
      if (!in) return Glance::Keep;
      answer_poll(head->unique, *in);
      return Glance::Answered;
    }
    case FUSE_READ: {
      const auto in = as<fuse_read_in>(request.body);
      if (!in || !file_.busy(in->fh)) return Glance::Keep;
      read(request);  // which waits now, or is told to come again
      return Glance::Answered;
    }
    case FUSE_WRITE: {
      const auto in = as<fuse_write_in>(request.body);
      if (!in || !file_.busy(in->fh)) return Glance::Keep;
      write(request);  // which is refused
      return Glance::Answered;
    }
    case FUSE_RELEASE: {
      const auto in = as<fuse_release_in>(request.body);
      return in && file_.cancels(in->fh, 0) ? Glance::Cancel : Glance::Keep;
    }
    case FUSE_INTERRUPT: {
      const auto in = as<fuse_interrupt_in>(request.body);
      return in && file_.cancels(0, in->unique) ? Glance::Cancel : Glance::Keep;
    }
    default:
      return Glance::Keep;
  }
}

void FuseSession::refuse(BytesView bytes) {
  const auto head = as<fuse_in_header>(bytes);
  if (head) reply(head->unique, head->opcode == FUSE_READ ? EAGAIN : EBUSY);
}

KeptRequests::Kind FuseSession::kind_of(BytesView bytes) noexcept {
  const auto head = as<fuse_in_header>(bytes);
  if (head && head->opcode == FUSE_RELEASE) return KeptRequests::Kind::Close;
  if (head && head->opcode == FUSE_INTERRUPT) return KeptRequests::Kind::Interrupt;
  return KeptRequests::Kind::Other;
}

bool FuseSession::resume() {
  parallel_ = true;  // a kernel that resends does
  if (!send(kNotifyResend, 0, {})) return false;
  for (std::uint64_t handle = 1; handle <= kHandlesWoken; ++handle)
    wake(handle);
  return true;
}

void FuseSession::reply(std::uint64_t unique, int error, BytesView body) {
  send(-error, unique, error != 0 ? BytesView() : body);
}

void FuseSession::notify(fuse_notify_code code, BytesView body) {
  send(code, 0, body);
}

// Without an allocation: a signal handler may be the caller.
bool FuseSession::send(std::int32_t error, std::uint64_t unique, BytesView body) {
  std::array<std::uint8_t, sizeof(fuse_out_header) + kMaxRead> frame;
  if (body.size() > kMaxRead) fatal("a reply to the kernel that is too long");
  const fuse_out_header head{static_cast<std::uint32_t>(sizeof head + body.size()), error, unique};
  std::memcpy(frame.data(), &head, sizeof head);
  if (!body.empty()) std::memcpy(frame.data() + sizeof head, body.data(), body.size());
  return channel_.send({frame.data(), head.len});
}

void FuseSession::init(const Request& request) {
  const auto in = as<fuse_init_in>(request.body, 8);
  if (!in) return reply(request.head.unique, EINVAL);
  fuse_init_out out{};
  out.major = FUSE_KERNEL_VERSION;
  out.minor = FUSE_KERNEL_MINOR_VERSION;
  // A newer major: say ours, and the kernel asks again (linux/fuse.h, "Protocol changelog").
  if (in->major > FUSE_KERNEL_VERSION) return reply(request.head.unique, 0, bytes_of(out));
  if (in->major < FUSE_KERNEL_VERSION || in->minor < kOldestMinor || request.body.size() < kOldInitSize)
    return reply(request.head.unique, EPROTO);
  out.max_write = kFuseMaxWrite;
  // Closes are background requests: none of them shall wait where it cannot be seen.
  out.max_background = 512;
  out.congestion_threshold = 384;
  out.time_gran = 1;
  reply(request.head.unique, 0, bytes_of(out));
  parallel_ = in->minor >= kParallelMinor;
  if (parallel_) tell_size();
}

// The kernel asks for attributes only when somebody calls stat(2): until then the file would be empty to it.
void FuseSession::tell_size() {
  fuse_notify_store_out last_byte{};
  last_byte.nodeid = FUSE_ROOT_ID;
  last_byte.offset = kFuseFileSize - 1;
  last_byte.size = 1;
  Bytes body;
  put(body, bytes_of(last_byte));
  body.push_back(0);
  notify(FUSE_NOTIFY_STORE, body);
}

void FuseSession::attributes(const Request& request) {
  if (request.head.nodeid != FUSE_ROOT_ID) return reply(request.head.unique, ENOENT);
  fuse_attr_out out{};
  out.attr.ino = FUSE_ROOT_ID;
  out.attr.mode = S_IFREG | 0666;
  out.attr.size = kFuseFileSize;
  out.attr.nlink = 1;
  out.attr.blksize = 4096;
  reply(request.head.unique, 0, bytes_of(out));
}

void FuseSession::open(const Request& request) {
  if (request.head.nodeid != FUSE_ROOT_ID) return reply(request.head.unique, ENOENT);
  fuse_open_out out{};
  const int error = file_.open(out.fh);
  // STREAM: every write(2) starts at offset 0, so that the later parts of a long one can be told apart.
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE | FOPEN_STREAM | FOPEN_NOFLUSH;
  if (parallel_) out.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
  reply(request.head.unique, error, bytes_of(out));
}

void FuseSession::read(const Request& request) {
  const auto in = as<fuse_read_in>(request.body);
  if (!in) return reply(request.head.unique, EINVAL);
  const bool wait = (in->flags & O_NONBLOCK) == 0;
  Bytes out;
  const int error = file_.read({request.head.unique, in->fh, wait, std::min(in->size, kMaxRead)}, out);
  if (error != kLater) reply(request.head.unique, error, out);
}

void FuseSession::read_done(std::uint64_t unique, int error, BytesView data) {
  reply(unique, error, data);
}

void FuseSession::write(const Request& request) {
  const auto in = as<fuse_write_in>(request.body);
  if (!in || in->size != request.body.size() - sizeof *in) return reply(request.head.unique, EINVAL);
  // While a write of the last two kinds is not answered, the kernel holds back those of all other files.
  const bool wait = (in->flags & O_NONBLOCK) == 0 && parallel_ && (in->flags & O_APPEND) == 0;
  const bool resent = (request.head.unique & kUniqueResend) != 0;
  const int error = file_.write(
      {request.head.unique, in->fh, in->offset, wait, resent, in->size, request.body.subspan(sizeof *in)});
  if (error != kLater) write_done(request.head.unique, error, in->size);
}

void FuseSession::write_done(std::uint64_t unique, int error, std::uint32_t size) {
  const fuse_write_out out{size, 0};
  reply(unique, error, bytes_of(out));
}

void FuseSession::release(const Request& request) {
  const auto in = as<fuse_release_in>(request.body);
  if (!in) return reply(request.head.unique, EINVAL);
  file_.release(in->fh);
  reply(request.head.unique, 0);
}

void FuseSession::poll(const Request& request) {
  const auto in = as<fuse_poll_in>(request.body);
  if (!in) return reply(request.head.unique, EINVAL);
  if (poll_count_ == polls_.size() || !file_.busy(in->fh)) return answer_poll(request.head.unique, *in);
  polls_[poll_count_++] = {request.head.unique, *in};
}

void FuseSession::answer_polls() {
  for (const auto& [unique, asked] : std::span(polls_).first(std::exchange(poll_count_, 0)))
    answer_poll(unique, asked);
}

void FuseSession::answer_poll(std::uint64_t unique, const fuse_poll_in& asked) {
  FusePoll poll{asked.fh, asked.events, {}};
  if ((asked.flags & FUSE_POLL_SCHEDULE_NOTIFY) != 0) poll.waiter = asked.kh;
  const fuse_poll_out out{file_.poll(poll), 0};
  reply(unique, 0, bytes_of(out));
}

// Has the kernel ask again.
void FuseSession::wake(std::uint64_t waiter) {
  const fuse_notify_poll_wakeup_out out{waiter};
  notify(FUSE_NOTIFY_POLL, bytes_of(out));
}

void FuseSession::interrupt(const Request& request) {
  const auto in = as<fuse_interrupt_in>(request.body);
  if (in) file_.interrupt(in->unique);  // it has no reply
}

void FuseSession::statfs(const Request& request) {
  fuse_statfs_out out{};
  out.st.bsize = 4096;
  out.st.namelen = 255;
  reply(request.head.unique, 0, bytes_of(out));
}

void FuseSession::accept(const Request& request) {
  reply(request.head.unique, 0);
}

void FuseSession::ignore(const Request&) {}

}  // namespace vtpm::engine
