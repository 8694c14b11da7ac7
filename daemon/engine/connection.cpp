// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/connection.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace vtpm::engine {
namespace {

// Both directions are closed: the peer is gone. One that has only sent its last still waits for the response.
constexpr short kGone = POLLHUP | POLLERR | POLLNVAL;

}  // namespace

// A command that waits or runs is not overtaken by the next one, and a response that is not taken holds back
// what would follow it: what a client can make the engine keep is one command and one response.
short Connection::events() const noexcept {
  if (sends()) return POLLOUT;
  return busy_ ? 0 : POLLIN;
}

void Connection::handle(short revents) {
  if (over_ || revents == 0) return;
  if ((revents & kGone) != 0) return end();
  if (sends()) {
    send_rest();
    go_on();
  } else if (!busy_) {
    receive();
  }
}

void Connection::receive() {
  const auto room = commands_.room();
  const ssize_t n = ::read(socket_.get(), room.data(), room.size());
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  // After its last command the peer waits for nothing more; the beginning of another one is worth nothing.
  if (n <= 0) return end();
  last_ = FairQueue::Clock::now();
  commands_.add(static_cast<std::size_t>(n));
  go_on();
}

// Begins with the next command, if the last one is done with.
void Connection::go_on() {
  while (!over_ && !busy_ && !sends()) {
    if (broken_) return end();
    const auto next = commands_.next();
    if (next == CommandStream::Next::Partial) return;
    broken_ = next == CommandStream::Next::Broken;
    busy_ = true;
    // What cannot be told apart is answered as a command without a header.
    device_.submit(space_, *this, broken_ ? Bytes{} : commands_.take(), FairQueue::Clock::now());
  }
}

void Connection::answered(Bytes response) {
  busy_ = false;
  respond(std::move(response));
  go_on();
}

void Connection::respond(Bytes response) {
  response_ = std::move(response);
  sent_ = 0;
  send_rest();
}

void Connection::send_rest() {
  const ssize_t n = ::write(socket_.get(), response_.data() + sent_, response_.size() - sent_);
  if (n < 0 && errno != EAGAIN && errno != EINTR) return end();
  if (n < 0) return;
  last_ = FairQueue::Clock::now();
  sent_ += static_cast<std::size_t>(n);
}

std::optional<Device::Time> Connection::silent_since() const noexcept {
  if (over_ || busy_) return std::nullopt;
  return last_;
}

bool Connection::stirs(Device::Time now) noexcept {
  pollfd peer{socket_.get(), events(), 0};
  if (::poll(&peer, 1, 0) <= 0) return false;
  last_ = now;
  return true;
}

bool Connection::cancels() const noexcept {
  if (!device_.runs(*this)) return false;
  pollfd peer{socket_.get(), 0, 0};
  return ::poll(&peer, 1, 0) > 0 && (peer.revents & kGone) != 0;
}

void Connection::end() {
  if (std::exchange(over_, true)) return;
  device_.close(space_);  // and its command with it
}

}  // namespace vtpm::engine
