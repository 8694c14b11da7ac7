// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/keeper_link.h"

#include "daemon/ipc/engine_program.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

namespace vtpm::ipc {

Result<KeeperLink> KeeperLink::connect(const std::string& path) {
  VTPM_TRY(UniqueFd socket, connect_seqpacket(path));
  return KeeperLink(std::move(socket));
}

// Connected first: a keeper that holds nothing and that nobody is connected to ends.
Result<KeeperLink> KeeperLink::start(const std::string& engine_path, const UniqueFd& listener,
                                     const std::string& path, int log_fd) {
  VTPM_TRY(KeeperLink link, connect(path));
  VTPM_TRY_VOID(execute_keeper(engine_path, listener.get(), log_fd));
  return link;
}

// Shut down, too: a duplicate of the socket, by which the connection is watched, would keep it connected, and
// the keeper would go on to wait for its next request.
void KeeperLink::close() noexcept {
  if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
  socket_.reset();
}

Result<Transfer> KeeperLink::exchange(Verb verb, BytesView payload, std::span<const int> fds,
                                      std::chrono::seconds patience) {
  if (!socket_) return Error(ErrorCode::Unreachable, "the keeper was given up after an error");
  const Deadline deadline = after(patience);
  const FrameHead request{verb, false, false, ++next_id_, 0};
  auto reply = [&]() -> Result<Transfer> {
    VTPM_TRY_VOID(send_transfer(socket_.get(), request, payload, fds, deadline));
    VTPM_TRY(Transfer received, receive_transfer(socket_.get(), deadline));
    if (!received.head.reply || received.head.verb != verb || received.head.id != request.id)
      return Error(ErrorCode::Malformed, "keeper frame: not the reply to the request");
    return received;
  }();
  if (!reply) {
    close();  // a late reply must never be taken for another request's
    return reply.error().within("the keeper");
  }
  if (reply->head.status != 0) return error_from_reply(reply->head.status, reply->payload, "keeper");
  return reply;
}

Result<> KeeperLink::hold(const HeldKey& key, int fd) {
  VTPM_TRY_VOID(exchange(Verb::Hold, encode(key), {&fd, 1}));
  return {};
}

Result<> KeeperLink::drop(const HeldKey& key) {
  VTPM_TRY_VOID(exchange(Verb::Drop, encode(key)));
  return {};
}

Result<> KeeperLink::release(std::uint64_t instance) {
  Bytes payload;
  put_be(payload, instance);
  VTPM_TRY_VOID(exchange(Verb::Release, payload));
  return {};
}

Result<std::vector<Held>> KeeperLink::recall() {
  std::vector<Held> all;
  for (;;) {
    auto next = exchange(Verb::Recall, all.empty() ? Bytes() : encode(all.back().key));
    if (!next && next.error().kind() == ErrorCode::NotFound) return all;
    if (!next) return next.error();
    VTPM_TRY(const HeldKey key, decode_held(next->payload));
    if (!all.empty() && key <= all.back().key)
      return Error(ErrorCode::Malformed, "keeper frame: a recall that does not go forward");
    all.push_back({key, std::move(next->fds[0])});
  }
}

Result<> KeeperLink::quit() {
  VTPM_TRY_VOID(exchange(Verb::Quit, {}));
  close();
  return {};
}

Result<> KeeperLink::answers() {
  const auto first = exchange(Verb::Recall, {}, {}, kAnswers);
  if (first || first.error().kind() == ErrorCode::NotFound) return {};
  return first.error();
}

Result<pid_t> KeeperLink::pid() const {
  VTPM_TRY(const PeerCredentials keeper, peer_credentials(socket_.get()));
  return keeper.pid;
}

Result<UniqueFd> KeeperLink::watch() const {
  UniqueFd copy(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("the keeper cannot be watched", errno);
  return copy;
}

}  // namespace vtpm::ipc
