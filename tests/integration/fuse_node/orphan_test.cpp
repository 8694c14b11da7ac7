// SPDX-License-Identifier: Apache-2.0
// A device node outlives its engine: another goes on with the same /dev/fuse.
#include "tests/integration/fuse_node/served.h"
#include "tests/support/kernel.h"

#include <signal.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

#define REQUIRE_RESEND() \
  REQUIRE_FUSE();        \
  if (!kernel_resends()) VTPM_SKIP("this kernel cannot resend FUSE requests (6.9 can)")

// A node whose descriptor somebody keeps, as vtpmd does, and its engines one after the other.
struct Orphaned {
  std::unique_ptr<ipc::Zygote> zygote = start_zygote();
  Place place;
  UniqueFd kept = place.mount();
  ipc::SpawnedEngine engine = serve(ipc::kChannelFuse);

  UniqueFd copy() const { return UniqueFd(::fcntl(kept.get(), F_DUPFD_CLOEXEC, 3)); }
  ipc::SpawnedEngine serve(std::uint8_t channel) {
    auto spawned = std::move(*zygote->spawn());
    REQUIRE(spawned.link->power_on());
    REQUIRE(code_of(run(*spawned.link, startup_clear())) == 0);
    REQUIRE(spawned.link->serve(NodeKind::Managed, copy(), channel));
    return spawned;
  }
  void signal(int number) const { REQUIRE(::kill(engine.pid, number) == 0); }
  void replace() {
    signal(SIGKILL);
    pollfd ended{engine.pidfd.get(), POLLIN, 0};
    REQUIRE(::poll(&ended, 1, 30000) == 1);
    engine = serve(ipc::kChannelOrphaned);
  }
};

// In a child: whether the file works again, with nothing left of before.
bool works(int fd) {
  const Bytes random = get_random(8);
  u8 response[64];
  return ::write(fd, random.data(), random.size()) == 12 && ::read(fd, response, sizeof response) == 20;
}

// Starts a child that opens the node and runs `client`, and waits until it has opened it.
template <class Client>
pid_t start(const Orphaned& node, int flags, Client client) {
  int ready[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const UniqueFd fd = open_node(node.place, flags);
    if (!fd || ::write(ready[1], "", 1) != 1) ::_exit(99);
    ::_exit(client(fd.get()));
  }
  const UniqueFd reader(ready[0]);
  ::close(ready[1]);
  char byte = 0;
  REQUIRE(::read(reader.get(), &byte, 1) == 1);
  return pid;
}

int status_of(pid_t pid) {
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return status;
}

void moment() {
  ::poll(nullptr, 0, 20);
}

}  // namespace

TEST_CASE("orphaned node: the write whose command ran when the engine died is EIO, once, and then it works") {
  REQUIRE_RESEND();
  Orphaned node;
  const pid_t pid = start(node, 0, [](int fd) {
    for (u32 i = 0;; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 3072, i);
      u8 response[4096];
      errno = 0;
      if (::write(fd, key.data(), key.size()) > 0 && ::read(fd, response, sizeof response) > 0) continue;
      if (errno != EIO) return 1;
      return works(fd) ? 0 : 2;
    }
  });
  moment();
  node.replace();
  CHECK(status_of(pid) == 0);
}

TEST_CASE("orphaned node: an open that the dead engine has not read is the new one's") {
  REQUIRE_RESEND();
  Orphaned node;
  node.signal(SIGSTOP);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const UniqueFd fd = open_node(node.place);
    ::_exit(fd && works(fd.get()) ? 0 : 1);
  }
  moment();
  node.replace();
  CHECK(status_of(pid) == 0);
}

TEST_CASE("orphaned node: who waits in poll is woken, with an error") {
  REQUIRE_RESEND();
  Orphaned node;
  const pid_t pid = start(node, O_NONBLOCK, [](int fd) {
    for (u32 i = 0;; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 3072, i);
      u8 response[4096];
      errno = 0;
      if (::write(fd, key.data(), key.size()) < 0) return errno == EIO && works(fd) ? 0 : 1;
      pollfd p{fd, POLLIN, 0};
      if (::poll(&p, 1, -1) != 1) return 2;
      if (::read(fd, response, sizeof response) > 0) continue;
      if (errno != EIO) return 3;
      return 0;
    }
  });
  moment();
  node.replace();
  CHECK(status_of(pid) == 0);
}

TEST_CASE("orphaned node: idle files go on after one error, new ones without") {
  REQUIRE_RESEND();
  Orphaned node;
  const UniqueFd old = open_node(node.place);
  const UniqueFd other = open_node(node.place);
  REQUIRE(code_of(ask(old, create_primary(kOwner))) == 0);
  node.replace();
  const UniqueFd young = open_node(node.place);
  CHECK(code_of(ask(young, get_random(8))) == 0);
  CHECK((ready(old) & POLLERR) != 0);
  CHECK(error_of(write_to(old, get_random(8))) == EIO);
  CHECK(ready(old) == POLLOUT);
  CHECK(handle_in(ask(old, create_primary(kOwner))) == 0x80000000);
  u8 response[16];
  CHECK(error_of(::read(other.get(), response, sizeof response)) == EIO);
  CHECK(code_of(ask(other, get_random(8))) == 0);
}

TEST_CASE("orphaned node: twice in a row") {
  REQUIRE_RESEND();
  Orphaned node;
  const UniqueFd fd = open_node(node.place);
  for (int i = 0; i < 2; ++i) {
    CHECK(code_of(ask(fd, get_random(8))) == 0);
    node.replace();
    CHECK(error_of(write_to(fd, get_random(8))) == EIO);
  }
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("engine status: it counts the tenants' commands and open files") {
  REQUIRE_FUSE();
  const Served served;
  const auto before = served.engine.link->status();
  REQUIRE(before);
  CHECK(before->commands == 0);
  CHECK(before->spaces == 0);
  const UniqueFd one = open_node(served.managed);
  const UniqueFd two = open_node(served.managed);
  const UniqueFd raw = open_node(served.raw);
  for (int i = 0; i < 3; ++i)
    REQUIRE(code_of(ask(one, get_random(8))) == 0);
  REQUIRE(code_of(ask(raw, create_rsa_primary(kOwner, 2048, 1))) == 0);
  const auto after = served.engine.link->status();
  REQUIRE(after);
  CHECK(after->commands == 4);
  CHECK(after->spaces == 2);
  CHECK(after->busy_us > 0);
}
