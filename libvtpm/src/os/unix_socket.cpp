// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/unix_socket.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vtpm {
namespace {

constexpr int kLongestPoll = 3'600'000;  // ms
constexpr time_t kConnectSeconds = 10;
// The kernel's SCM_MAX_FD. There is room for all of them: those without room the kernel closes by itself, on
// the receiving thread.
constexpr std::size_t kMaxSentFds = 253;

#ifdef SO_PASSRIGHTS
constexpr int kPassRights = SO_PASSRIGHTS;
#else
constexpr int kPassRights = 83;  // asm-generic/socket.h of Linux 6.16
#endif

// Waits until `events` or the deadline. No deadline: returns at once, the call itself blocks.
Result<> wait_for(int socket, short events, const Deadline& deadline) {
  if (!deadline) return {};
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now()).count();
    pollfd p{socket, events, 0};
    // A deadline further away than poll(2) can count is looked at again after kLongestPoll.
    const int n = ::poll(&p, 1, static_cast<int>(std::clamp<decltype(left)>(left, 0, kLongestPoll)));
    if (n > 0) return {};
    if (n == 0 && left > kLongestPoll) continue;
    if (n == 0) return Error(ErrorCode::Timeout, "the peer did not answer in time");
    if (errno != EINTR) return errno_error("poll", errno);
  }
}

// How long connect(2) and sendmsg(2) block; 0: for ever.
Result<> set_send_timeout(int socket, time_t seconds) {
  const timeval time{seconds, 0};
  if (::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) != 0)
    return errno_error("SO_SNDTIMEO", errno);
  return {};
}

void take_fds(const cmsghdr& header, std::vector<UniqueFd>& fds) {
  const std::size_t count = (header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (std::size_t i = 0; i < count; ++i) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(&header) + i * sizeof(int), sizeof fd);
    fds.emplace_back(fd);
  }
}

// Room for what recvmsg(2) brings.
struct Incoming {
  explicit Incoming(std::span<std::uint8_t> into) : data{into.data(), into.size()} {
    message.msg_iov = &data;
    message.msg_iovlen = 1;
  }
  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;

  ssize_t receive(int socket, int flags) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    return ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
  }
  std::vector<UniqueFd> fds() {
    std::vector<UniqueFd> all;
    for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h))
      if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) take_fds(*h, all);
    return all;
  }

  iovec data;
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxSentFds * sizeof(int))];
  msghdr message{};
};

}  // namespace

Result<SocketPair> make_seqpacket_pair() {
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    return errno_error("socketpair", errno);
  return SocketPair{UniqueFd(pair[0]), UniqueFd(pair[1])};
}

Result<UniqueFd> connect_seqpacket(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error(ErrorCode::Configuration, path + ": longer than a Unix socket's path may be (107 bytes)");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket", errno);
  VTPM_TRY_VOID(set_send_timeout(fd.get(), kConnectSeconds));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == EACCES || errno == EPERM) return errno_error(path, errno);
    if (errno == EAGAIN) return Error(ErrorCode::Timeout, path + ": the connection was not accepted in time");
    return Error(ErrorCode::Unreachable, path + ": " + std::strerror(errno));
  }
  VTPM_TRY_VOID(set_send_timeout(fd.get(), 0));
  return fd;
}

Result<> send_message(int socket, BytesView bytes, std::span<const int> fds, Deadline deadline) {
  if (fds.size() > kMaxMessageFds) return Error(ErrorCode::Internal, "too many descriptors in one message");
  iovec data{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  for (;;) {
    VTPM_TRY_VOID(wait_for(socket, POLLOUT, deadline));
    if (::sendmsg(socket, &message, MSG_NOSIGNAL | (deadline ? MSG_DONTWAIT : 0)) >= 0) return {};
    if (errno == EINTR || (deadline && errno == EAGAIN)) continue;
    if (errno == EPIPE || errno == ECONNRESET) return Error(ErrorCode::Unreachable, "the peer is gone");
    return errno_error("sendmsg", errno);
  }
}

Result<Message> receive_message(int socket, std::size_t limit, Deadline deadline) {
  Message received;
  received.bytes.resize(limit);
  Incoming incoming(received.bytes);
  ssize_t n = -1;
  for (;;) {
    VTPM_TRY_VOID(wait_for(socket, POLLIN, deadline));
    n = incoming.receive(socket, deadline ? MSG_DONTWAIT : 0);
    if (n >= 0) break;
    if (errno == EINTR || (deadline && errno == EAGAIN)) continue;
    if (errno == ECONNRESET) return Error(ErrorCode::Unreachable, "the peer is gone");
    return errno_error("recvmsg", errno);
  }
  received.fds = incoming.fds();
  if ((incoming.message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || received.fds.size() > kMaxMessageFds) {
    received.refused = true;
    received.bytes.clear();
    return received;
  }
  if (n == 0 && received.fds.empty()) return Error(ErrorCode::Unreachable, "the peer closed the connection");
  received.bytes.resize(static_cast<std::size_t>(n));
  return received;
}

bool refuse_descriptors(int socket) noexcept {
  const int no = 0;
  return ::setsockopt(socket, SOL_SOCKET, kPassRights, &no, sizeof no) == 0;
}

Result<Part> receive_part(int socket, std::span<std::uint8_t> into) {
  Incoming incoming(into);
  ssize_t n = -1;
  do {
    n = incoming.receive(socket, MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n >= 0) return Part{static_cast<std::size_t>(n), incoming.fds()};
  if (errno == EAGAIN) return Error(ErrorCode::Timeout, "nothing has been sent");
  if (errno == ECONNRESET) return Error(ErrorCode::Unreachable, "the peer is gone");
  return errno_error("recvmsg", errno);
}

Result<PeerCredentials> peer_credentials(int socket) {
  ucred cred{};
  socklen_t length = sizeof cred;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0)
    return errno_error("SO_PEERCRED", errno);
  PeerCredentials peer{cred.pid, cred.uid, cred.gid, {}};
  peer.groups.resize(64);
  length = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0) {
    if (errno != ERANGE) return errno_error("SO_PEERGROUPS", errno);
    peer.groups.resize(length / sizeof(gid_t));
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &length) != 0)
      return errno_error("SO_PEERGROUPS", errno);
  }
  peer.groups.resize(length / sizeof(gid_t));
  return peer;
}

}  // namespace vtpm
