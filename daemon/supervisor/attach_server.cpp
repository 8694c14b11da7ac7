// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/attach_server.h"

#include "daemon/supervisor/hostile_fd.h"

#include <vtpm/os/process.h>
#include <vtpm/os/unix_socket.h>

#include <sys/socket.h>
#include <unistd.h>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kMessageDeadline = 5s;
// Of the four threads that read peers' files, ordinary users get two: root's containers always find a free
// one.
constexpr std::size_t kMaxUserReads = 2;

// The process must be the peer's own, unless the peer is root.
Result<> check_process(const PeerCredentials& peer, int pidfd) {
  VTPM_TRY_VOID(pid_of_pidfd(pidfd));
  if (peer.uid == 0) return {};
  VTPM_TRY(const uid_t uid, uid_of_pidfd(pidfd));
  if (uid == peer.uid) return {};
  return Error(ErrorCode::PermissionDenied, "the container's process belongs to uid " + std::to_string(uid) +
                                                ", not to the caller (uid " + std::to_string(peer.uid) + ")");
}

// Whoever opened a cgroup.procs may move engines into its cgroup as far as it could move them by itself: root
// any, vtpmd's own user those that are its own. Nobody else can, and a user's cgroup is a way to stop an
// engine.
Result<> check_cgroup(const PeerCredentials& peer, int fd) {
  if (peer.uid != 0 && peer.uid != ::getuid())
    return Error(ErrorCode::PermissionDenied,
                 "only root and vtpmd's own user may have an engine run in a container's cgroup");
  return check_cgroup_procs(fd);
}

// The descriptors, which are as many as they should be.
Result<> check_launch(const PeerCredentials& peer, const control::LaunchRequest& request,
                      const std::vector<UniqueFd>& fds) {
  const std::size_t nodes_end = 2 + request.nodes.size();
  if (fds.size() != nodes_end + (request.cgroup ? 1 : 0))
    return Error(ErrorCode::Malformed, "a launch needs a pidfd, config.json and a /dev/fuse for each node");
  VTPM_TRY_VOID(check_process(peer, fds[0].get()));
  VTPM_TRY_VOID(check_regular_file(fds[1].get()));
  for (std::size_t i = 2; i < nodes_end; ++i)
    VTPM_TRY_VOID(check_fuse_device(fds[i].get()));
  return request.cgroup ? check_cgroup(peer, fds.back().get()) : Result<>();
}

// A hook's node, as people see it. It is in the container: no path of the host.
Node container_node(control::NodeKind kind) {
  return {kind, kind == control::NodeKind::Raw ? "container:/dev/tpm0" : "container:/dev/vtpm"};
}

}  // namespace

// Keeps a connection where close() finds it.
class AttachServer::Open {
 public:
  Open(AttachServer& server, Descriptor& descriptor) : server_(server), descriptor_(descriptor) {
    server_.open_.insert(&descriptor_);
  }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
  ~Open() { server_.open_.erase(&descriptor_); }

 private:
  AttachServer& server_;
  Descriptor& descriptor_;
};

void AttachServer::close() {
  closed_ = true;
  boost::system::error_code ignored;  // nothing is pending
  for (Descriptor* descriptor : open_)
    descriptor->cancel(ignored);
}

asio::awaitable<void> AttachServer::serve(UniqueFd socket, PeerCredentials peer) {
  Descriptor descriptor(co_await asio::this_coro::executor, socket.release());
  {
    const Open open(*this, descriptor);
    while (!closed_ && co_await serve_one(descriptor, peer)) {
    }
  }
  // The peer learns now that this is the end. With the socket go the messages still in it and their
  // descriptors; until then it counts as a connection.
  Fds last;
  last.emplace_back(descriptor.release());
  ::shutdown(last.front().get(), SHUT_RDWR);
  co_await dispose(workers_.disposal, peer.uid, Disposal::Kind::Connection, std::move(last));
}

asio::awaitable<bool> AttachServer::serve_one(Descriptor& descriptor, const PeerCredentials& peer) {
  {
    const Expiry<Descriptor> expiry(descriptor, kMessageDeadline);
    const auto [error] = co_await descriptor.async_wait(Descriptor::wait_read, kResume);
    if (error) co_return false;
  }
  // A reply that cannot be sent at once is to a peer that left or does not read.
  const auto reply = [&descriptor](Result<std::string> outcome) {
    const std::string text = control::serialize(control::AttachReply{std::move(outcome)});
    return send_message(descriptor.native_handle(), as_bytes(text), {}, after(0ms));
  };
  if (workers_.disposal.is_busy(peer.uid)) {
    static_cast<void>(reply(Error(ErrorCode::Busy, "earlier descriptors are not closed yet: try again")));
    // The message stays unread: were it closed now, the peer would get ECONNRESET before the reply.
    const Expiry<Descriptor> expiry(descriptor, kMessageDeadline);
    [[maybe_unused]] const auto [left] = co_await descriptor.async_wait(Descriptor::wait_error, kResume);
    co_return false;
  }
  auto message = receive_message(descriptor.native_handle(), control::kMaxAttachMessage, after(0ms));
  if (!message) co_return message.error().kind() == ErrorCode::Timeout;  // woken for nothing
  Result<std::string> outcome =
      Error(ErrorCode::Malformed, "the message is too long or has too many descriptors");
  if (!message->refused) outcome = co_await handle(peer, std::move(message->bytes), message->fds);
  const auto sent = reply(std::move(outcome));
  // Nor is it served on meanwhile: so what waits is limited by the connections, too.
  co_await dispose(workers_.disposal, peer.uid, Disposal::Kind::Passed, std::move(message->fds));
  co_return bool(sent);
}

Task<std::string> AttachServer::handle(PeerCredentials peer, Bytes message, Fds& fds) {
  VTPM_CO_TRY(control::AttachMessage request, control::parse_attach_message(message, fds.size()));
  if (auto* launched = std::get_if<control::LaunchRequest>(&request))
    co_return co_await launch(std::move(peer), std::move(*launched), fds);
  if (auto* attached = std::get_if<control::AttachRequest>(&request))
    co_return co_await attach(std::move(peer), std::move(*attached), fds);
  if (auto* detached = std::get_if<control::DetachRequest>(&request))
    co_return co_await detach(std::move(peer), std::move(*detached));
  co_return co_await release(std::move(peer), std::get<control::ReleaseRequest>(std::move(request)));
}

Task<std::string> AttachServer::launch(PeerCredentials peer, control::LaunchRequest request, Fds& fds) {
  VTPM_CO_TRY_VOID(check_launch(peer, request, fds));
  VTPM_CO_TRY(std::string config, co_await digest_config(peer.uid, fds[1]));

  Order order;
  order.owner = peer.uid;
  order.quota = is_operator(peer, rules_) ? SIZE_MAX : quota_;
  order.name = std::move(request.name);
  order.durable = request.durable;
  order.launch.container = request.container;
  order.launch.image = std::move(request.image);
  order.launch.config = std::move(config);
  order.launch.container_process = std::move(fds[0]);
  if (request.cgroup) order.launch.cgroup = std::make_shared<UniqueFd>(std::move(fds.back()));
  VTPM_CO_TRY(std::string id, co_await instances_.create(std::move(order)));
  for (std::size_t i = 0; i < request.nodes.size(); ++i) {
    Node node = container_node(request.nodes[i]);
    const auto served = co_await instances_.serve(id, std::move(node), own(peer, fds[i + 2]));
    if (served) continue;
    const auto ended = co_await instances_.end(id, "attach-failed");
    if (!ended) log_line(LogLevel::Warning, "instance " + id + ": " + ended.error().context);
    co_return served.error();
  }
  log_line(LogLevel::Info, "instance " + id + " for container " + request.container);
  co_return id;
}

// A `file` that is not read stays the caller's; one that is read is closed by the worker.
Task<std::string> AttachServer::digest_config(uid_t uid, UniqueFd& file) {
  if (uid != 0 && (reading_.contains(uid) || reading_.size() >= kMaxUserReads))
    co_return Error(ErrorCode::Busy, "another config.json is being read: try again");
  if (uid != 0) reading_.insert(uid);
  const auto read = [fd = std::make_shared<UniqueFd>(std::move(file))] {
    auto digest = digest_of_file(fd->get());
    fd->reset();
    return digest;
  };
  auto digest = co_await run_on(workers_.files, read);
  reading_.erase(uid);
  co_return digest;
}

PeerFd AttachServer::own(const PeerCredentials& peer, UniqueFd& fd) {
  return {workers_.disposal, peer.uid, std::move(fd)};
}

Task<std::string> AttachServer::attach(PeerCredentials peer, control::AttachRequest request, Fds& fds) {
  if (fds.size() != 1) co_return Error(ErrorCode::Malformed, "an attach needs one descriptor");
  const bool is_socket = request.backend == control::Backend::Socket;
  VTPM_CO_TRY_VOID(is_socket ? check_listening_socket(fds[0].get()) : check_fuse_device(fds[0].get()));
  if (is_socket) refuse_descriptors(fds[0].get());  // where the kernel can; whatever made the socket
  VTPM_CO_TRY(std::string id, registry_.resolve(peer, rules_, request.instance));
  Node node{request.node, std::move(request.path), request.backend};
  VTPM_CO_TRY_VOID(co_await instances_.serve(id, std::move(node), own(peer, fds[0])));
  co_return id;
}

Task<std::string> AttachServer::detach(PeerCredentials peer, control::DetachRequest request) {
  VTPM_CO_TRY(std::string id, registry_.resolve(peer, rules_, request.instance));
  VTPM_CO_TRY_VOID(instances_.forget_node(id, request.path));
  co_return id;
}

// Only the launching user's: container ids are chosen by users, and two of them may choose the same.
Task<std::string> AttachServer::release(PeerCredentials peer, control::ReleaseRequest request) {
  VTPM_CO_TRY_VOID(co_await instances_.end_container(request.container, peer.uid));
  co_return std::string();
}

}  // namespace vtpm::supervisor
