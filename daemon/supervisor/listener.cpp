// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/listener.h"

#include <sys/socket.h>

#include <cerrno>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kPauseWithoutDescriptors = 100ms;
constexpr auto kBetweenReports = 1s;

// Of whom the kernel does not tell who it is.
constexpr uid_t kNobody = static_cast<uid_t>(-1);

bool is_shortage(int error) noexcept {
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

}  // namespace

// Counts one connection while it lives.
class Listener::Place {
 public:
  Place(Listener& listener, uid_t uid) noexcept : listener_(listener), uid_(uid) {
    ++listener_.connections_;
    ++listener_.of_user_[uid_];
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    --listener_.connections_;
    if (--listener_.of_user_[uid_] == 0) listener_.of_user_.erase(uid_);
  }

 private:
  Listener& listener_;
  uid_t uid_;
};

Listener::Listener(asio::any_io_executor executor, UniqueFd socket, std::string name, Disposal& disposal,
                   Session session)
    : executor_(std::move(executor)),
      socket_(executor_, socket.release()),
      name_(std::move(name)),
      disposal_(disposal),
      session_(std::move(session)),
      next_report_(executor_) {}

void Listener::start() {
  spawn(executor_, name_, accept_all());
}

void Listener::close() {
  boost::system::error_code ignored;  // closed already
  socket_.close(ignored);
  next_report_.cancel();
}

asio::awaitable<void> Listener::accept_all() {
  for (;;) {
    const auto [error] = co_await socket_.async_wait(asio::posix::stream_descriptor::wait_read, kResume);
    if (error) co_return;
    co_await accept_one();
  }
}

asio::awaitable<void> Listener::accept_one() {
  if (disposal_.is_full()) {
    report("too many descriptors of peers cannot be closed: nobody is accepted");
  } else {
    UniqueFd socket(::accept4(socket_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) co_return accepted(std::move(socket));
    if (!is_shortage(errno)) co_return;
    report("no descriptors or memory left for a connection");
  }
  asio::steady_timer pause(executor_, kPauseWithoutDescriptors);
  co_await pause.async_wait(kResume);
}

bool Listener::has_place(uid_t uid) const {
  const auto count_of = [this](uid_t user) {
    const auto found = of_user_.find(user);
    return found == of_user_.end() ? 0 : found->second;
  };
  if (connections_ >= kMaxConnections) return false;
  return uid == 0 || (connections_ - count_of(0) < kMaxOfUsers && count_of(uid) < kMaxOfOneUser);
}

void Listener::accepted(UniqueFd socket) {
  auto peer = peer_credentials(socket.get());
  if (!peer) return refuse(std::move(socket), kNobody, peer.error().context);
  if (!has_place(peer->uid))
    return refuse(std::move(socket), peer->uid,
                  "too many connections, one of uid " + std::to_string(peer->uid) + " is refused");
  spawn(executor_, name_ + " session", serve(std::move(socket), std::move(*peer)));
}

// It has no place that it could keep until it is closed: these may be many (Disposal::is_full).
void Listener::refuse(UniqueFd socket, uid_t uid, std::string why) {
  report(std::move(why));
  ::shutdown(socket.get(), SHUT_RDWR);  // the peer learns it now
  disposal_.drop(uid, Disposal::Kind::Connection, std::move(socket));
}

// Any user can be refused as often as it likes: that makes a line each second.
void Listener::report(std::string what) {
  trouble_ = std::move(what);
  ++troubles_;
  if (!std::exchange(reporting_, true)) spawn(executor_, name_ + " report", report_by_the_second());
}

asio::awaitable<void> Listener::report_by_the_second() {
  while (const std::size_t count = std::exchange(troubles_, 0)) {
    log_line(LogLevel::Warning,
             name_ + ": " + trouble_ + (count > 1 ? " (the last of " + std::to_string(count) + ")" : ""));
    next_report_.expires_after(kBetweenReports);
    co_await next_report_.async_wait(kResume);
  }
  reporting_ = false;
}

asio::awaitable<void> Listener::serve(UniqueFd socket, PeerCredentials peer) {
  const Place place(*this, peer.uid);
  co_await session_(std::move(socket), std::move(peer));
}

}  // namespace vtpm::supervisor
