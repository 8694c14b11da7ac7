// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/fuse_mount.h"

#include <unistd.h>

#include <cerrno>

namespace vtpm::engine {
namespace {

// Requests that are read in a row: tenants may send more for ever.
constexpr int kMaxInARow = 64;

}  // namespace

void FuseMount::handle(std::span<const pollfd> polled, bool all) {
  if (polled.front().revents != 0) read_requests(all);
}

// A client that is alone has one request at a time: to look for another would be a system call for nothing.
void FuseMount::read_requests(bool all) {
  for (int i = 0; i < kMaxInARow && handle_one() && all; ++i) {
  }
}

bool FuseMount::handle_one() {
  const ssize_t n = ::read(fuse_.get(), buffer_.data(), buffer_.size());
  if (n >= 0) {
    session_.handle({buffer_.data(), static_cast<std::size_t>(n)});
    return true;
  }
  if (errno == EINTR || errno == ENOENT) return true;  // ENOENT: its process was killed in between
  if (errno != EAGAIN) lose(errno);
  return false;
}

bool FuseMount::send(BytesView frame) {
  for (;;) {
    if (::write(fuse_.get(), frame.data(), frame.size()) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno == EINVAL) return false;
    // ENOENT: the request was given up, nobody waits for this reply.
    if (errno != ENOENT) lose(errno);
    return true;
  }
}

Result<> FuseMount::resume() {
  node_.adopt();
  if (session_.resume()) return {};
  return Error(ErrorCode::Unsupported, "this kernel cannot resend what the dead engine left (Linux 6.9 can)");
}

bool FuseMount::glance(KeptRequests& kept, GlanceBudget& budget) {
  bool cancel = false;
  session_.answer_polls();
  for (unsigned taken = 0; !gone_ && budget.take(taken); ++taken) {
    const auto room = kept.room();
    if (room.empty()) break;
    const ssize_t n = ::read(fuse_.get(), room.data(), room.size());
    if (n < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (n < 0) {
      if (errno != EAGAIN) lose(errno);
      break;
    }
    const BytesView request = room.first(static_cast<std::size_t>(n));
    const auto found = session_.glance(request);
    if (found == FuseSession::Glance::Answered) continue;
    cancel |= found == FuseSession::Glance::Cancel;
    if (!kept.keep(*this, request.size(), FuseSession::kind_of(request))) session_.refuse(request);
  }
  return cancel;
}

void FuseMount::lose(int errno_value) noexcept {
  if (errno_value != ENODEV) error_ = errno_value;
  gone_ = true;
}

}  // namespace vtpm::engine
