// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/kernel.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/unix_socket.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

using namespace vtpm;
using namespace vtpm::test;
using namespace std::chrono_literals;

namespace {

SocketPair make_pair() {
  auto pair = make_seqpacket_pair();
  REQUIRE(pair);
  return std::move(*pair);
}

UniqueFd open_null() {
  return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(entries, {}));
}

UniqueFd listen_at(const std::string& path) {
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener.get(), 2) == 0);
  return listener;
}

constexpr std::size_t kMaxOfKernel = 253;  // SCM_MAX_FD

// A byte with `count` copies of `file`.
void send_many(const UniqueFd& socket, const UniqueFd& file, std::size_t count) {
  const std::vector<int> fds(count, file.get());
  const std::size_t size = count * sizeof(int);
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxOfKernel * sizeof(int))] = {};
  char byte = 1;
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(size);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(size);
  std::memcpy(CMSG_DATA(header), fds.data(), size);
  REQUIRE(::sendmsg(socket.get(), &message, 0) == 1);
}

bool same_file(int a, int b) {
  struct stat first {
  }, second{};
  return ::fstat(a, &first) == 0 && ::fstat(b, &second) == 0 && first.st_ino == second.st_ino &&
         first.st_dev == second.st_dev;
}

}  // namespace

TEST_CASE("unix socket: messages keep their borders") {
  const auto pair = make_pair();
  const Bytes first{1, 2, 3}, second(1000, 4);
  REQUIRE(send_message(pair.first.get(), first));
  REQUIRE(send_message(pair.first.get(), second));
  CHECK(receive_message(pair.second.get(), 1000)->bytes == first);
  CHECK(receive_message(pair.second.get(), 1000)->bytes == second);
}

TEST_CASE("unix socket: descriptors travel with their message, close-on-exec") {
  const auto pair = make_pair();
  const UniqueFd file = open_null();
  const auto count = GENERATE(as<std::size_t>(), 1, 2, kMaxMessageFds);
  const std::vector<int> fds(count, file.get());
  REQUIRE(send_message(pair.first.get(), Bytes{7}, fds));
  const auto message = receive_message(pair.second.get(), 10);
  REQUIRE(message);
  CHECK(message->bytes == Bytes{7});
  REQUIRE(message->fds.size() == count);
  for (const auto& fd : message->fds) {
    CHECK(same_file(fd.get(), file.get()));
    CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
}

TEST_CASE("unix socket: more descriptors than are allowed are not sent") {
  const auto pair = make_pair();
  const UniqueFd file = open_null();
  const std::vector<int> fds(kMaxMessageFds + 1, file.get());
  CHECK_FALSE(send_message(pair.first.get(), Bytes{7}, fds));
}

TEST_CASE("unix socket: more descriptors than are allowed are refused, and all are the receiver's") {
  const auto pair = make_pair();
  const UniqueFd file = open_null();
  constexpr std::size_t kCount = kMaxMessageFds + 3;
  send_many(pair.first, file, kCount);
  const auto received = receive_message(pair.second.get(), 10);
  REQUIRE(received);
  CHECK(received->refused);
  CHECK(received->bytes.empty());
  CHECK(received->fds.size() == kCount);
}

TEST_CASE("unix socket: a message over the limit is refused, and its descriptors are the receiver's") {
  const auto pair = make_pair();
  const UniqueFd file = open_null();
  const std::size_t before = open_descriptors();
  const int fd = file.get();
  REQUIRE(send_message(pair.first.get(), Bytes(11, 1), {&fd, 1}));
  {
    const auto received = receive_message(pair.second.get(), 10);
    REQUIRE(received);
    CHECK(received->refused);
    CHECK(received->bytes.empty());
    CHECK(received->fds.size() == 1);
    CHECK(open_descriptors() == before + 1);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("unix socket: one that refuses descriptors takes bytes alone, as do connections from then on") {
  const TemporaryDirectory directory;
  const UniqueFd listener = listen_at(directory.path("s"));
  const UniqueFd file = open_null();
  const int fd = file.get();
  const auto early = connect_seqpacket(directory.path("s"));
  const bool refuses = refuse_descriptors(listener.get());
  REQUIRE(refuses == kernel_refuses_descriptors());
  if (!refuses) return;
  const auto late = connect_seqpacket(directory.path("s"));
  REQUIRE(early);
  REQUIRE(late);
  CHECK(send_message(early->get(), Bytes{1}, {&fd, 1}));
  CHECK_FALSE(send_message(late->get(), Bytes{1}, {&fd, 1}));
  UniqueFd accepted;
  for (int i = 0; i < 2; ++i)
    accepted = UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  CHECK_FALSE(send_message(late->get(), Bytes{2}, {&fd, 1}));
  CHECK(send_message(late->get(), Bytes{3}));
  CHECK(receive_message(accepted.get(), 10)->bytes == Bytes{3});
}

TEST_CASE("unix socket: what is no Unix socket refuses nothing") {
  CHECK_FALSE(refuse_descriptors(open_null().get()));
}

TEST_CASE("unix socket: a part of a stream comes with all the descriptors that were sent with it") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  UniqueFd sender(ends[0]);
  const UniqueFd receiver(ends[1]), file = open_null();
  std::array<std::uint8_t, 4> into{};
  CHECK(receive_part(receiver.get(), into).error().kind() == ErrorCode::Timeout);
  REQUIRE(send_message(sender.get(), Bytes{1, 2, 3, 4, 5}));
  auto part = receive_part(receiver.get(), into);
  REQUIRE(part);
  CHECK(part->size == 4);
  CHECK(part->fds.empty());
  CHECK(receive_part(receiver.get(), into)->size == 1);
  send_many(sender, file, kMaxOfKernel);
  part = receive_part(receiver.get(), into);
  REQUIRE(part);
  CHECK(part->size == 1);
  CHECK(part->fds.size() == kMaxOfKernel);
  sender.reset();
  part = receive_part(receiver.get(), into);
  REQUIRE(part);
  CHECK(part->size == 0);
}

TEST_CASE("unix socket: a closed peer is unreachable") {
  auto pair = make_pair();
  pair.first.reset();
  CHECK(receive_message(pair.second.get(), 10).error().kind() == ErrorCode::Unreachable);
  CHECK(send_message(pair.second.get(), Bytes{1}).error().kind() == ErrorCode::Unreachable);
}

TEST_CASE("unix socket: what was sent before the peer closed is still received") {
  auto pair = make_pair();
  REQUIRE(send_message(pair.first.get(), Bytes{1}));
  pair.first.reset();
  CHECK(receive_message(pair.second.get(), 10)->bytes == Bytes{1});
  CHECK(receive_message(pair.second.get(), 10).error().kind() == ErrorCode::Unreachable);
}

TEST_CASE("unix socket: a peer that is silent is a timeout at the deadline") {
  const auto pair = make_pair();
  CHECK(receive_message(pair.first.get(), 10, after(1ms)).error().kind() == ErrorCode::Timeout);
  CHECK(receive_message(pair.first.get(), 10, after(-5ms)).error().kind() == ErrorCode::Timeout);
  REQUIRE(send_message(pair.second.get(), Bytes{1}));
  CHECK(receive_message(pair.first.get(), 10, after(std::chrono::hours(24 * 365)))->bytes == Bytes{1});
}

TEST_CASE("unix socket: a peer that does not read is a timeout at the deadline") {
  const auto pair = make_pair();
  const Bytes bytes(60000, 1);
  Result<> sent;
  for (int i = 0; i < 1000 && sent; ++i)
    sent = send_message(pair.first.get(), bytes, {}, after(1ms));
  REQUIRE_FALSE(sent);
  CHECK(sent.error().kind() == ErrorCode::Timeout);
}

TEST_CASE("unix socket: nobody at a path is unreachable, with the path") {
  const TemporaryDirectory directory;
  const auto socket = connect_seqpacket(directory.path("none.sock"));
  CHECK(socket.error().kind() == ErrorCode::Unreachable);
  CHECK(socket.error().context.find(directory.path("none.sock")) != std::string::npos);
  CHECK(connect_seqpacket(std::string(108, 'x')).error().kind() == ErrorCode::Configuration);
}

TEST_CASE("unix socket: a listener's peer has our credentials") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("s");
  const UniqueFd listener = listen_at(path);
  const auto client = connect_seqpacket(path);
  REQUIRE(client);
  const UniqueFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const auto peer = peer_credentials(accepted.get());
  REQUIRE(peer);
  CHECK(peer->pid == ::getpid());
  CHECK(peer->uid == ::getuid());
  CHECK(peer->gid == ::getgid());
  std::vector<gid_t> groups(static_cast<std::size_t>(::getgroups(0, nullptr)));
  REQUIRE(::getgroups(static_cast<int>(groups.size()), groups.data()) >= 0);
  auto theirs = peer->groups;
  std::ranges::sort(theirs);
  std::ranges::sort(groups);
  CHECK(theirs == groups);
}

TEST_CASE("unix socket: what is no socket has no credentials") {
  CHECK_FALSE(peer_credentials(open_null().get()));
}
