// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/disposal.h"

#include "tests/support/catch_result.h"
#include "tests/support/slow_to_close.h"

#include <fcntl.h>
#include <poll.h>

#include <chrono>
#include <future>
#include <thread>

using namespace vtpm;
using namespace vtpm::supervisor;
using namespace vtpm::test;
using namespace std::chrono_literals;

namespace {

constexpr uid_t kAlice = 54321;
constexpr uid_t kBob = 54322;
constexpr auto kPassed = Disposal::Kind::Passed;

// A pipe whose reader tells when the writer is closed.
struct Pipe {
  Pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
  bool is_closed(int milliseconds = 0) const {
    pollfd p{reader.get(), 0, 0};
    return ::poll(&p, 1, milliseconds) > 0;
  }
  UniqueFd reader;
  UniqueFd writer;
};

std::vector<UniqueFd> only(UniqueFd fd) {
  std::vector<UniqueFd> all;
  all.push_back(std::move(fd));
  return all;
}

}  // namespace

TEST_CASE("disposal: what would linger for a minute is closed at once, however many") {
  SilentServer server;
  Disposal disposal(1000);
  std::vector<std::future<void>> closed;
  for (int i = 0; i < 20; ++i) {
    UniqueFd slow = server.slow_to_close();
    REQUIRE(slow);
    const auto done = std::make_shared<std::promise<void>>();
    closed.push_back(done->get_future());
    disposal.drop(i % 2 == 0 ? kAlice : kBob, kPassed, only(std::move(slow)), [done] { done->set_value(); });
  }
  for (auto& one : closed)
    CHECK(one.wait_for(10s) == std::future_status::ready);
  CHECK_FALSE(disposal.is_full());
  CHECK_FALSE(disposal.is_busy(kAlice));
}

TEST_CASE("disposal: what is done is not counted any more when it is said to be done") {
  Disposal disposal(1);
  for (int i = 0; i < 100; ++i) {
    std::promise<bool> full;
    Pipe pipe;
    disposal.drop(kAlice, kPassed, only(std::move(pipe.writer)), [&] { full.set_value(disposal.is_full()); });
    CHECK_FALSE(full.get_future().get());
    CHECK(pipe.is_closed());
  }
}

TEST_CASE("disposal: root's are closed, and said to be, before it returns; so is nothing at all") {
  Disposal disposal(1);
  Pipe pipe;
  bool done = false;
  disposal.drop(0, kPassed, only(std::move(pipe.writer)), [&] { done = true; });
  CHECK(pipe.is_closed());
  CHECK(done);
  done = false;
  disposal.drop(kAlice, kPassed, only({}), [&] { done = true; });
  CHECK(done);
}

TEST_CASE("disposal: it may go before what it was given is closed") {
  Pipe pipe;
  {
    Disposal disposal(1);
    disposal.drop(kAlice, kPassed, std::move(pipe.writer));
  }
  CHECK(pipe.is_closed(10'000));
}

TEST_CASE("peer's descriptor: closed by the disposal when it is destroyed, replaced or reset") {
  Disposal disposal(100);
  Pipe destroyed, replaced, reset, moved;
  { const PeerFd fd(disposal, kAlice, std::move(destroyed.writer)); }
  CHECK(destroyed.is_closed(10'000));
  PeerFd fd(disposal, kAlice, std::move(replaced.writer));
  fd = PeerFd(disposal, kBob, std::move(reset.writer));
  CHECK(replaced.is_closed(10'000));
  CHECK_FALSE(reset.is_closed());
  fd.reset();
  CHECK_FALSE(fd);
  CHECK(reset.is_closed(10'000));
  PeerFd from(disposal, kAlice, std::move(moved.writer));
  const PeerFd to(std::move(from));
  PeerFd copy = to.duplicate();
  CHECK(copy.get() != to.get());
  CHECK_FALSE(moved.is_closed());
}
