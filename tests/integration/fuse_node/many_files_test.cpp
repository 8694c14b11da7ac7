// SPDX-License-Identifier: Apache-2.0
// Device nodes as programs see them: many open files at a time.
#include "daemon/ipc/engine_limits.h"
#include "tests/integration/fuse_node/served.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <atomic>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

TEST_CASE("node: the managed node has many open files, each with its own responses") {
  REQUIRE_FUSE();
  const Served served;
  std::vector<UniqueFd> files;
  for (int i = 0; i < 100; ++i) {
    files.push_back(open_node(served.managed));
    REQUIRE(files.back());
  }
  for (std::size_t i = 0; i < files.size(); ++i)
    REQUIRE(write_to(files[i], get_random(static_cast<u16>(1 + i % 60))) == 12);
  for (std::size_t i = files.size(); i-- > 0;) {
    CHECK(ready(files[i]) == POLLIN);
    CHECK(read_from(files[i]).size() == 12 + 1 + i % 60);
    CHECK(ready(files[i]) == POLLOUT);
  }
}

TEST_CASE("node: a second open of a raw node is EBUSY until the last close") {
  REQUIRE_FUSE();
  const Served served;
  Place another;
  REQUIRE(served.engine.link->serve(NodeKind::Raw, another.mount()));
  UniqueFd fd = open_node(served.raw);
  REQUIRE(fd);
  CHECK(error_of(open_node(served.raw).get()) == EBUSY);
  CHECK(error_of(open_node(another).get()) == EBUSY);
  CHECK(open_node(served.managed));
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  fd.reset();
  CHECK(error_of(open_node(served.raw).get()) == EBUSY);
  copy.reset();
  // The close of one node is seen by the other at once.
  for (int i = 0; i < 50; ++i) {
    CHECK(open_node(served.raw));
    CHECK(open_node(another));
  }
}

TEST_CASE("node: the close of a raw node is seen by the others' opens while a long command runs, too") {
  REQUIRE_FUSE();
  const Served served;
  Place later;
  REQUIRE(served.engine.link->serve(NodeKind::Raw, later.mount()));
  std::atomic<bool> stop{false};
  std::atomic<bool> ok{true};
  std::thread maker([&] {
    const UniqueFd fd = open_node(served.managed);
    for (u32 i = 0; !stop; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 2048, i);
      u8 response[4096];
      if (::write(fd.get(), key.data(), key.size()) < 0) ok = false;
      if (::read(fd.get(), response, sizeof response) < 14) ok = false;
      const Bytes remove = command(0x165, Writer().add(handle_in(BytesView(response, 14))));
      if (::write(fd.get(), remove.data(), remove.size()) < 0) ok = false;
      if (::read(fd.get(), response, sizeof response) != 10) ok = false;
    }
  });
  int refused = 0;
  for (int i = 0; i < 40; ++i) {
    UniqueFd fd = open_node(later);  // its answer comes between two keys
    refused += fd ? 0 : 1;
    fd.reset();
    fd = open_node(served.raw);
    refused += fd ? 0 : 1;
  }
  stop = true;
  maker.join();
  CHECK(refused == 0);
  CHECK(ok);
}

TEST_CASE("node: with O_NONBLOCK a command is taken at once, and poll tells when its response is there") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
  for (int i = 0; i < 20; ++i) {
    REQUIRE(write_to(fd, i % 2 == 0 ? get_random(8) : create_primary(kOwner)) > 0);
    pollfd p{fd.get(), POLLIN, 0};
    REQUIRE(::poll(&p, 1, 10000) == 1);
    CHECK(p.revents == POLLIN);
    const Bytes response = read_from(fd);
    REQUIRE(code_of(response) == 0);
    if (i % 2 != 0) REQUIRE(code_of(ask(fd, command(0x165, Writer().add(handle_in(response))))) == 0);
    CHECK(ready(fd) == POLLOUT);
  }
}

TEST_CASE("node: who reads first waits for the response, of a file that others write") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed, O_APPEND);  // whose writes are answered before they are run
  for (int i = 0; i < 20; ++i)
    REQUIRE(code_of(ask(fd, get_random(16))) == 0);
}

TEST_CASE("node: each of several that wait in poll or epoll is woken by its own file") {
  REQUIRE_FUSE();
  const Served served;
  constexpr std::size_t kFiles = 8;
  std::vector<UniqueFd> files;
  std::vector<std::thread> waiters;
  std::atomic<unsigned> woken{0};
  const UniqueFd all(::epoll_create1(EPOLL_CLOEXEC));
  for (std::size_t i = 0; i < kFiles; ++i) {
    files.push_back(open_node(served.managed, O_NONBLOCK));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    REQUIRE(::epoll_ctl(all.get(), EPOLL_CTL_ADD, files[i].get(), &event) == 0);
  }
  for (std::size_t i = 0; i < kFiles; ++i)
    waiters.emplace_back([&, i] {
      pollfd p{files[i].get(), POLLIN, 0};
      if (::poll(&p, 1, 10000) == 1 && p.revents == POLLIN) ++woken;
    });
  epoll_event event{};
  CHECK(::epoll_wait(all.get(), &event, 1, 0) == 0);
  for (std::size_t i = 0; i < kFiles; ++i) {
    REQUIRE(write_to(files[i], get_random(8)) == 12);
    REQUIRE(::epoll_wait(all.get(), &event, 1, 10000) == 1);
    CHECK(event.data.u64 == i);
    waiters[i].join();
    CHECK(woken == i + 1);
    CHECK(read_from(files[i]).size() == 20);
  }
}

TEST_CASE("node: a file lives on in a forked process when its opener closes it") {
  REQUIRE_FUSE();
  const Served served;
  UniqueFd fd = open_node(served.managed);
  const Bytes created = ask(fd, create_primary(kOwner));
  REQUIRE(code_of(created) == 0);
  int gate[2];
  REQUIRE(::pipe2(gate, O_CLOEXEC) == 0);
  const UniqueFd opened(gate[0]);
  UniqueFd closed(gate[1]);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    closed.reset();
    char nothing = 0;
    if (::read(opened.get(), &nothing, 1) != 0) ::_exit(1);  // until the parent has closed its copy
    const Bytes flush = command(0x165, Writer().add(handle_in(created)));
    u8 response[64];
    if (::write(fd.get(), flush.data(), flush.size()) < 0) ::_exit(2);
    if (::read(fd.get(), response, sizeof response) != 10) ::_exit(3);
    ::_exit(code_of(BytesView(response, 10)) == 0 ? 0 : 4);
  }
  fd.reset();
  closed.reset();
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
}

TEST_CASE("node: many processes at once all get their answers") {
  REQUIRE_FUSE();
  const Served served;
  constexpr int kProcesses = 20;
  std::vector<pid_t> pids;
  for (int i = 0; i < kProcesses; ++i) {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const UniqueFd fd = open_node(served.managed, i % 2 == 0 ? O_NONBLOCK : 0);
      for (int round = 0; round < 50; ++round) {
        const Bytes random = get_random(static_cast<u16>(1 + i));
        if (::write(fd.get(), random.data(), random.size()) != 12) ::_exit(1);
        pollfd p{fd.get(), POLLIN, 0};
        if (::poll(&p, 1, 30000) != 1) ::_exit(2);
        u8 response[128];
        if (::read(fd.get(), response, sizeof response) != 12 + 1 + i) ::_exit(3);
      }
      ::_exit(0);
    }
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
  }
}

TEST_CASE("node: as many open files as the limit, the next is EBUSY, and a close makes room") {
  REQUIRE_FUSE();
  const Served served;
  std::vector<UniqueFd> files;
  for (std::size_t i = 0; i < ipc::EngineLimits{}.spaces; ++i) {
    files.push_back(open_node(served.managed));
    REQUIRE(files.back());
  }
  CHECK(error_of(open_node(served.managed).get()) == EBUSY);
  CHECK(open_node(served.raw));
  CHECK(code_of(ask(files.front(), get_random(8))) == 0);
  files.pop_back();
  const UniqueFd next = open_node(served.managed);
  REQUIRE(next);
  CHECK(code_of(ask(next, get_random(8))) == 0);
}

TEST_CASE("node: select(2) tells which have a response") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd one = open_node(served.managed), two = open_node(served.managed);
  const auto readable = [&] {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(one.get(), &set);
    FD_SET(two.get(), &set);
    timeval at_once{};
    REQUIRE(::select(std::max(one.get(), two.get()) + 1, &set, nullptr, nullptr, &at_once) >= 0);
    return std::pair(bool(FD_ISSET(one.get(), &set)), bool(FD_ISSET(two.get(), &set)));
  };
  CHECK(readable() == std::pair(false, false));
  REQUIRE(write_to(two, get_random(8)) == 12);
  CHECK(readable() == std::pair(false, true));
  CHECK(code_of(read_from(two)) == 0);
  CHECK(readable() == std::pair(false, false));
}
