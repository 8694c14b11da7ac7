// SPDX-License-Identifier: Apache-2.0
// Commands that take long: neighbours get their share, and signals and closes cancel them.
#include "tests/integration/fuse_node/served.h"

#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr u32 kCanceled = 0x909;  // TPM_RC_CANCELED

Bytes flush(u32 handle) {
  return command(0x165, Writer().add(handle));
}

// From now on this process gets a signal every 2 ms, which interrupts system calls.
void want_signals(int flags = 0) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  action.sa_flags = flags;
  ::sigaction(SIGALRM, &action, nullptr);
  const itimerval often{{0, 2000}, {0, 2000}};
  ::setitimer(ITIMER_REAL, &often, nullptr);
}

}  // namespace

TEST_CASE("long commands: who extends a PCR gets far more done than who makes RSA keys") {
  REQUIRE_FUSE();
  const Served served;
  constexpr u32 kKeys = 8;
  std::atomic<bool> done{false};
  std::atomic<bool> ok{true};
  std::thread maker([&] {
    const UniqueFd fd = open_node(served.managed);
    for (u32 i = 0; i < kKeys; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 2048, i);
      Bytes response(4096);
      if (::write(fd.get(), key.data(), key.size()) < 0) ok = false;
      const auto n = ::read(fd.get(), response.data(), response.size());
      if (n < 14 || code_of(BytesView(response).first(static_cast<std::size_t>(n))) != 0) ok = false;
      const Bytes remove = flush(handle_in(response));
      if (::write(fd.get(), remove.data(), remove.size()) < 0) ok = false;
      if (::read(fd.get(), response.data(), response.size()) != 10) ok = false;
    }
    done = true;
  });
  const UniqueFd fd = open_node(served.managed, GENERATE(0, O_NONBLOCK));
  unsigned extends = 0;
  while (!done) {
    REQUIRE(write_to(fd, pcr_extend(16, {})) > 0);
    pollfd p{fd.get(), POLLIN, 0};
    REQUIRE(::poll(&p, 1, 30000) == 1);
    REQUIRE(code_of(read_from(fd)) == 0);
    ++extends;
  }
  maker.join();
  CHECK(ok);
  CHECK(extends > 20 * kKeys);
}

TEST_CASE("long commands: a signal cancels one, its write is EINTR and the file is as before") {
  REQUIRE_FUSE();
  const Served served;
  const int status = in_child([&] {
    const UniqueFd fd = open_node(served.managed);
    want_signals();
    for (u32 i = 0; i < 20; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 3072, i);
      const ssize_t n = ::write(fd.get(), key.data(), key.size());
      u8 response[4096];
      if (n < 0 && errno != EINTR) return 1;
      const bool cancelled = n < 0;
      const ssize_t m = ::read(fd.get(), response, sizeof response);
      if (cancelled && m != 0) return 2;
      if (cancelled) {
        const Bytes random = get_random(8);
        if (::write(fd.get(), random.data(), random.size()) != 12) return 3;
        if (::read(fd.get(), response, sizeof response) != 20) return 4;
        return 0;
      }
      const Bytes remove = flush(handle_in(BytesView(response, static_cast<std::size_t>(m))));
      if (::write(fd.get(), remove.data(), remove.size()) < 0) return 5;
      if (::read(fd.get(), response, sizeof response) != 10) return 6;
    }
    return 7;  // none of them was cancelled
  });
  CHECK(status == 0);
  CHECK(served.engine.link->status()->cancelled == 1);
}

TEST_CASE("long commands: a signal during the read cancels one, and the read gets TPM_RC_CANCELED") {
  REQUIRE_FUSE();
  const Served served;
  const int flags = GENERATE(0, SA_RESTART);
  const int status = in_child([&] {
    const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
    const Bytes key = create_rsa_primary(kOwner, 3072, 1);
    if (::write(fd.get(), key.data(), key.size()) < 0) return 1;
    ::fcntl(fd.get(), F_SETFL, 0);
    want_signals(flags);
    u8 response[4096];
    const ssize_t n = ::read(fd.get(), response, sizeof response);
    if (n != 10) return 2;
    if (code_of(BytesView(response, 10)) != kCanceled) return 3;
    return ::read(fd.get(), response, sizeof response) == 0 ? 0 : 4;
  });
  CHECK(status == 0);
  CHECK(served.engine.link->status()->cancelled == 1);
}

TEST_CASE(
    "long commands: a signal during the read of one that waits is EINTR, and the response comes later") {
  REQUIRE_FUSE();
  const Served served;
  ipc::EngineLimits slow;
  slow.commands_per_second = 2;
  REQUIRE(served.engine.link->set_limits(slow));
  const int flags = GENERATE(0, SA_RESTART);
  const int status = in_child([&] {
    const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
    const Bytes random = get_random(8);
    u8 response[4096];
    // At the latest the second one waits.
    for (int i = 0; i < 2; ++i) {
      ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
      if (::write(fd.get(), random.data(), random.size()) != 12) return 1;
      ::fcntl(fd.get(), F_SETFL, 0);
      if (i == 1) want_signals(flags);
      const ssize_t n = ::read(fd.get(), response, sizeof response);
      if (i == 1 && (n != -1 || errno != EINTR)) return 2;
    }
    ssize_t n = -1;
    while (n < 0 && errno == EINTR)
      n = ::read(fd.get(), response, sizeof response);
    return n == 20 && code_of(BytesView(response, 20)) == 0 ? 0 : 3;
  });
  CHECK(status == 0);
  CHECK(served.engine.link->status()->cancelled == 0);
}

TEST_CASE("long commands: one that is written again after each signal gets done") {
  REQUIRE_FUSE();
  const Served served;
  const int status = in_child([&] {
    const UniqueFd fd = open_node(served.managed);
    want_signals();
    const Bytes key = create_rsa_primary(kOwner, 3072, 1);
    int tries = 1;
    while (::write(fd.get(), key.data(), key.size()) < 0) {
      if (errno != EINTR || ++tries > 100) return 1;
    }
    u8 response[4096];
    const ssize_t n = ::read(fd.get(), response, sizeof response);
    return n > 10 && code_of(BytesView(response, static_cast<std::size_t>(n))) == 0 ? 0 : 2;
  });
  CHECK(status == 0);
}

TEST_CASE("long commands: with O_NONBLOCK a poll ends at its time and a read is EAGAIN meanwhile") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
  bool seen = false;
  for (u32 i = 0; i < 20 && !seen; ++i) {
    REQUIRE(write_to(fd, create_rsa_primary(kOwner, 3072, i)) > 0);
    pollfd p{fd.get(), POLLIN | POLLOUT, 0};
    const int early = ::poll(&p, 1, 1);
    u8 response[4096];
    const ssize_t n = ::read(fd.get(), response, sizeof response);
    seen = early == 0 && n < 0 && errno == EAGAIN;
    if (n > 0) continue;
    REQUIRE(::poll(&p, 1, 60000) == 1);
    CHECK(p.revents == POLLIN);
    const Bytes made = read_from(fd);
    REQUIRE(code_of(made) == 0);
    REQUIRE(write_to(fd, flush(handle_in(made))) > 0);
    REQUIRE(::poll(&p, 1, 60000) == 1);
    REQUIRE(read_from(fd).size() == 10);
  }
  CHECK(seen);
}

TEST_CASE("long commands: those of clients that are killed do not keep the others waiting for ever") {
  REQUIRE_FUSE();
  const Served served;
  const int flags = GENERATE(0, O_NONBLOCK);
  std::vector<pid_t> pids;
  for (u32 i = 0; i < 10; ++i) {
    const pid_t pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const UniqueFd fd = open_node(served.managed, flags);
      for (;;) {
        const Bytes key = create_rsa_primary(kOwner, 3072, i);
        u8 response[4096];
        if (::write(fd.get(), key.data(), key.size()) < 0 && errno != EBUSY) ::_exit(1);
        (void)!::read(fd.get(), response, sizeof response);
      }
    }
    pids.push_back(pid);
  }
  const UniqueFd fd = open_node(served.managed);
  for (int i = 0; i < 20; ++i)
    REQUIRE(code_of(ask(fd, get_random(8))) == 0);
  for (const pid_t pid : pids)
    ::kill(pid, SIGKILL);
  for (const pid_t pid : pids) {
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status));
  }
  REQUIRE(code_of(ask(fd, get_random(8))) == 0);
}
