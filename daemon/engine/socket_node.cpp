// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/socket_node.h"

#include <sys/socket.h>

#include <cerrno>

namespace vtpm::engine {
namespace {

// Until it is tried again to accept where the machine lacked what a connection needs.
constexpr std::chrono::milliseconds kRest{100};

}  // namespace

SocketNode::~SocketNode() {
  for (const auto& connection : connections_)
    all_.remove(*connection);
}

// Who waits in the listen queue is looked at only when there is room or can be, or would wake the loop for
// ever. The listener's end is always told.
void SocketNode::wait_for(Wait& wait) {
  remove_ended();
  if (rests_until_ && *rests_until_ <= FairQueue::Clock::now()) rests_until_.reset();
  const bool accepting = accepts(wait);
  wait.polled.push_back({listener_.get(), static_cast<short>(accepting ? POLLIN : 0), 0});
  for (const auto& connection : connections_)
    wait.polled.push_back({connection->fd(), connection->events(), 0});
  wait.no_longer_than(rests_until_);
}

void SocketNode::handle(std::span<const pollfd> polled, bool) {
  for (std::size_t i = 0; i < connections_.size(); ++i)
    connections_[i]->handle(polled[i + 1].revents);
  if ((polled[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0)
    gone_ = true;
  else if (polled[0].revents != 0 && (has_room() || make_room()))
    accept_one();
}

// The raw node's one client keeps it; but another kind of clients may have all the connections.
bool SocketNode::may_displace() const {
  return kind_ == NodeKind::Managed || device_.has_room(kind_);
}

bool SocketNode::accepts(Wait& wait) const {
  if (rests_until_) return false;
  if (has_room()) return true;
  if (!may_displace()) return false;
  const Displacement choice = all_.choice(FairQueue::Clock::now());
  wait.no_longer_than(choice.later);
  return choice.which.has_value();
}

bool SocketNode::make_room() {
  return may_displace() && all_.make_room(FairQueue::Clock::now());
}

void SocketNode::catch_up() {
  for (const auto& connection : connections_) {
    pollfd polled{connection->fd(), connection->events(), 0};
    if (::poll(&polled, 1, 0) > 0) connection->handle(polled.revents);
  }
}

// Takes nothing: it looks at one connection, that whose command runs.
bool SocketNode::glance(KeptRequests&, GlanceBudget&) {
  return std::ranges::any_of(connections_, [](const auto& connection) { return connection->cancels(); });
}

void SocketNode::remove_ended() {
  std::erase_if(connections_, [this](const auto& connection) {
    if (connection->over()) all_.remove(*connection);
    return connection->over();
  });
}

// One at a time: another holder of the listener could have taken the next one, or made it block.
void SocketNode::accept_one() {
  UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket) return refused(errno);
  const auto space = device_.open(kind_);
  if (!space) return;
  connections_.push_back(std::make_unique<Connection>(std::move(socket), device_, *space));
  all_.add(*connections_.back(), kind_);
  connections_.back()->receive();  // most have sent their first command already
}

void SocketNode::refused(int errno_value) {
  switch (errno_value) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
      return;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      rests_until_ = FairQueue::Clock::now() + kRest;
      return;
    default:
      error_ = errno_value;
      gone_ = true;
  }
}

}  // namespace vtpm::engine
