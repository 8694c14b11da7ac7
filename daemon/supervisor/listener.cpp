// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/listener.h"

#include <sys/socket.h>

#include <cerrno>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kPauseWithoutDescriptors = 100ms;

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

Listener::Listener(asio::any_io_executor executor, UniqueFd socket, std::string name, Session session)
    : executor_(std::move(executor)),
      socket_(executor_, socket.release()),
      name_(std::move(name)),
      session_(std::move(session)) {}

void Listener::start() {
  spawn(executor_, name_, accept_all());
}

void Listener::close() {
  boost::system::error_code ignored;  // closed already
  socket_.close(ignored);
}

asio::awaitable<void> Listener::accept_all() {
  for (;;) {
    const auto [error] = co_await socket_.async_wait(asio::posix::stream_descriptor::wait_read, kResume);
    if (error) co_return;
    UniqueFd socket(::accept4(socket_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket) {
      accepted(std::move(socket));
    } else if (is_shortage(errno)) {
      log_line(LogLevel::Warning, name_ + ": no descriptors or memory left for a connection");
      asio::steady_timer pause(executor_, kPauseWithoutDescriptors);
      co_await pause.async_wait(kResume);
    }
  }
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
  if (!peer) return log_line(LogLevel::Warning, name_ + ": " + peer.error().context);
  if (!has_place(peer->uid))
    return log_line(LogLevel::Warning, name_ + ": too many connections, one of uid " +
                                           std::to_string(peer->uid) + " is refused");
  spawn(executor_, name_ + " session", serve(std::move(socket), std::move(*peer)));
}

asio::awaitable<void> Listener::serve(UniqueFd socket, PeerCredentials peer) {
  const Place place(*this, peer.uid);
  co_await session_(std::move(socket), std::move(peer));
}

}  // namespace vtpm::supervisor
