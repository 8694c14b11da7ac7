// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/keeper.h"

#include "daemon/engine/log.h"
#include "daemon/ipc/frame.h"
#include "daemon/ipc/held.h"

#include <vtpm/os/unix_socket.h>

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <set>
#include <vector>

namespace vtpm::engine {
namespace {

using ipc::HeldKey;
using ipc::HeldKind;

constexpr std::size_t kMaxInstances = 10'000;
// Descriptors that are not held: the standard ones, the sockets, and one message's on their way in.
constexpr std::size_t kSpare = 8 + kMaxMessageFds;
// For the rest of a transfer whose first frame has come, and for a reply to be taken. Every permitted frame
// is a transfer of its own.
constexpr std::chrono::seconds kPatience{2};

class Keeper {
 public:
  Keeper(UniqueFd listener, std::size_t descriptors, std::chrono::milliseconds patience)
      : listener_(std::move(listener)),
        room_(descriptors > kSpare ? descriptors - kSpare : 0),
        patience_(patience) {}

  int run();

 private:
  using Held = std::map<HeldKey, UniqueFd>;
  using Answer = Result<Bytes>;
  using Clock = std::chrono::steady_clock;

  void accept_peer();
  void watch_engines();
  void serve_peer();
  Answer answer(ipc::Transfer& request, int& reply_fd);
  Answer hold(const HeldKey& key, UniqueFd fd);
  Answer recall(BytesView after, int& reply_fd) const;
  void release(std::uint64_t instance);
  void engine_ended(std::uint64_t instance);
  int until_next_patience_ends() const;
  void give_up_nodes();
  bool has_room(HeldKind kind) const;
  Held::iterator first_of(std::uint64_t instance) {
    return held_.lower_bound({instance, HeldKind::Control, 0});
  }

  UniqueFd listener_;
  std::size_t room_;
  std::chrono::milliseconds patience_;
  UniqueFd peer_;
  bool begun_ = false;  // somebody has been connected
  bool quit_ = false;
  Held held_;
  std::set<std::uint64_t> instances_;
  std::set<std::uint64_t> ended_;                       // of instances_: the engine is known to have ended
  std::map<std::uint64_t, Clock::time_point> orphans_;  // of ended_: until when its nodes are held
};

int Keeper::run() {
  while (!quit_) {
    if (peer_)
      serve_peer();
    else if (begun_ && held_.empty())
      break;
    else
      watch_engines();
  }
  return 0;
}

void Keeper::watch_engines() {
  std::vector<pollfd> polled{{listener_.get(), POLLIN, 0}};
  std::vector<std::uint64_t> whose{0};
  for (const auto& [key, fd] : held_) {
    if (key.kind != HeldKind::Engine || ended_.contains(key.instance)) continue;
    polled.push_back({fd.get(), POLLIN, 0});
    whose.push_back(key.instance);
  }
  const int ready = ::poll(polled.data(), polled.size(), until_next_patience_ends());
  give_up_nodes();
  if (ready <= 0) return;  // or a signal that stopped and continued it
  for (std::size_t i = 1; i < polled.size(); ++i)
    if (polled[i].revents != 0) engine_ended(whose[i]);
  if (polled[0].revents != 0) accept_peer();
}

void Keeper::accept_peer() {
  UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!peer) return;  // it left again
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0 ||
      credentials.uid != ::getuid()) {
    log_line("keeper: uid " + std::to_string(credentials.uid) + " is refused");
    return;
  }
  peer_ = std::move(peer);
  begun_ = true;
}

void Keeper::serve_peer() {
  pollfd waiting{peer_.get(), POLLIN, 0};
  if (::poll(&waiting, 1, -1) <= 0) return;
  auto request = ipc::receive_transfer(peer_.get(), after(kPatience));
  if (!request) {
    if (request.error().kind() != ErrorCode::Unreachable) log_line("keeper: " + request.error().context);
    peer_.reset();
    return;
  }
  ipc::FrameHead head{request->head.verb, true, false, request->head.id, 0};
  int fd = -1;
  const Answer answered = answer(*request, fd);
  Bytes payload;
  if (answered) {
    payload = *answered;
  } else {
    head.status = static_cast<std::uint32_t>(answered.error().kind());
    put(payload, as_bytes(answered.error().context));
  }
  const auto fds = fd < 0 ? std::span<const int>() : std::span<const int>(&fd, 1);
  if (!ipc::send_transfer(peer_.get(), head, payload, fds, after(kPatience))) peer_.reset();
}

Keeper::Answer Keeper::answer(ipc::Transfer& request, int& reply_fd) {
  if (request.head.reply) return Error(ErrorCode::Malformed, "a reply to nothing");
  const BytesView payload = request.payload;
  switch (request.head.verb) {
    case ipc::Verb::Hold: {
      VTPM_TRY(const HeldKey key, ipc::decode_held(payload));
      return hold(key, std::move(request.fds[0]));
    }
    case ipc::Verb::Drop: {
      VTPM_TRY(const HeldKey key, ipc::decode_held(payload));
      held_.erase(key);
      return Bytes{};
    }
    case ipc::Verb::Release: {
      if (payload.size() != sizeof(std::uint64_t)) return Error(ErrorCode::Malformed, "no instance");
      release(get_be<std::uint64_t>(payload));
      return Bytes{};
    }
    case ipc::Verb::Recall:
      return recall(payload, reply_fd);
    case ipc::Verb::Quit:
      if (!held_.empty())
        return Error(ErrorCode::Conflict, std::to_string(instances_.size()) + " instances are held");
      quit_ = true;
      return Bytes{};
    default:
      return Error(ErrorCode::Malformed, "not for the keeper");
  }
}

Keeper::Answer Keeper::hold(const HeldKey& key, UniqueFd fd) {
  if (!has_room(key.kind)) return Error(ErrorCode::Exhausted, "the keeper's limit of descriptors");
  if (!instances_.contains(key.instance) && instances_.size() >= kMaxInstances)
    return Error(ErrorCode::Exhausted, "the keeper holds 10000 instances, the limit");
  instances_.insert(key.instance);
  if (key.kind == HeldKind::Engine) {
    ended_.erase(key.instance);  // another engine
    orphans_.erase(key.instance);
  }
  held_.insert_or_assign(key, std::move(fd));
  return Bytes{};
}

Keeper::Answer Keeper::recall(BytesView after, int& reply_fd) const {
  auto next = held_.begin();
  if (!after.empty()) {
    VTPM_TRY(const HeldKey last, ipc::decode_held(after));
    next = held_.upper_bound(last);
  }
  if (next == held_.end()) return Error(ErrorCode::NotFound, "that is all");
  reply_fd = next->second.get();
  return ipc::encode(next->first);
}

// Without its node an instance runs on, and without its cgroup. So they leave room for what no instance
// outlives vtpmd without.
bool Keeper::has_room(HeldKind kind) const {
  const bool can_do_without = kind == HeldKind::Node || kind == HeldKind::Cgroup;
  return held_.size() < (can_do_without ? room_ - room_ / 4 : room_);
}

void Keeper::release(std::uint64_t instance) {
  auto one = first_of(instance);
  while (one != held_.end() && one->first.instance == instance)
    one = held_.erase(one);
  instances_.erase(instance);
  ended_.erase(instance);
  orphans_.erase(instance);
}

// Its nodes wait for the next vtpmd, which has another engine of a durable instance serve them. Of an
// ephemeral one there are sockets alone, which it ends.
void Keeper::engine_ended(std::uint64_t instance) {
  ended_.insert(instance);
  held_.erase({instance, HeldKind::Control, 0});
  const auto node = held_.lower_bound({instance, HeldKind::Node, 0});
  if (node != held_.end() && node->first.instance == instance)
    orphans_.emplace(instance, Clock::now() + patience_);
}

// For poll(2): milliseconds, -1 for ever.
int Keeper::until_next_patience_ends() const {
  if (orphans_.empty()) return -1;
  const auto first = std::min_element(orphans_.begin(), orphans_.end(), [](const auto& a, const auto& b) {
                       return a.second < b.second;
                     })->second;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - Clock::now()).count();
  return static_cast<int>(std::max<decltype(left)>(left, 0));
}

// A socket is ended for all who have it, but stays: its last close(2) may wait for what was sent to it, and
// would stall everybody here. vtpmd lets go of a socket after the keeper, so that it never is the last. (A
// /dev/fuse is no socket: shutdown(2) fails.)
void Keeper::give_up_nodes() {
  std::erase_if(orphans_, [this, now = Clock::now()](const auto& orphan) {
    if (orphan.second > now) return false;
    std::erase_if(held_, [&](const auto& one) {
      return one.first.instance == orphan.first && one.first.kind == HeldKind::Node &&
             ::shutdown(one.second.get(), SHUT_RDWR) != 0;
    });
    log_line("keeper: no vtpmd has come: the nodes of an instance whose engine has ended are let go");
    return true;
  });
}

}  // namespace

int run_keeper(UniqueFd listener, std::size_t descriptors, std::chrono::milliseconds patience) {
  return Keeper(std::move(listener), descriptors, patience).run();
}

}  // namespace vtpm::engine
