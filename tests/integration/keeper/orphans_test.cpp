// SPDX-License-Identifier: Apache-2.0
// Nodes of engines that ended while there was no vtpmd: held for the next one, but not for ever.
#include "daemon/engine/keeper.h"
#include "daemon/supervisor/keeper.h"
#include "tests/integration/fuse_node/served.h"
#include "tests/integration/keeper/fixture.h"
#include "tests/support/slow_to_close.h"

#include <vtpm/os/process.h>

#include <sys/resource.h>

#include <optional>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;
using ipc::HeldKind;

namespace {

// The keeper's loop in a child process, with less patience and room than the program has.
class ImpatientKeeper {
 public:
  ImpatientKeeper(std::chrono::milliseconds patience, std::size_t descriptors) {
    path_ = directory_.path("keeper.sock");
    UniqueFd listener = listen_at(path_);
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::_exit(engine::run_keeper(std::move(listener), descriptors, patience));
    }
    join();
  }
  ~ImpatientKeeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ImpatientKeeper(const ImpatientKeeper&) = delete;
  ImpatientKeeper& operator=(const ImpatientKeeper&) = delete;
  ipc::KeeperLink& link() { return *link_; }
  void leave() { link_.reset(); }
  void join() {
    auto joined = ipc::KeeperLink::connect(path_);
    REQUIRE(joined);
    link_.emplace(std::move(*joined));
  }

 private:
  TemporaryDirectory directory_;
  std::string path_;
  std::optional<ipc::KeeperLink> link_;
  pid_t pid_ = 0;
};

void kill_engine(const ipc::SpawnedEngine& engine) {
  REQUIRE(signal_process(engine.pidfd.get(), SIGKILL));
  REQUIRE(readable(engine.pidfd.get()));
}

}  // namespace

TEST_CASE("orphans: the nodes of an engine that ended are let go when no vtpmd comes, its pidfd stays") {
  ImpatientKeeper keeper(std::chrono::milliseconds(50), 1024);
  const auto zygote = start_zygote();
  auto engine = zygote->spawn();
  REQUIRE(engine);
  Pipe control, node, others;
  REQUIRE(keeper.link().hold({1, HeldKind::Control, 0}, control.writer.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, engine->pidfd.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Node, 4}, node.writer.get()));
  REQUIRE(keeper.link().hold({2, HeldKind::Node, 0}, others.writer.get()));
  for (auto* pipe : {&control, &node, &others})
    pipe->writer.reset();
  kill_engine(*engine);
  keeper.leave();
  CHECK(control.ended());
  CHECK(node.ended());
  CHECK(others.held());
  keeper.join();
  CHECK(keeper.link().recall()->size() == 2);
}

TEST_CASE(
    "orphans: a socket is ended when no vtpmd comes; what is slow to close in its queue stalls nobody") {
  ImpatientKeeper keeper(std::chrono::milliseconds(50), 1024);
  const auto zygote = start_zygote();
  auto engine = zygote->spawn();
  REQUIRE(engine);
  const TemporaryDirectory directory;
  const std::string path = directory.path("node.sock");
  std::optional<SilentServer> server(std::in_place);
  {
    const UniqueFd listener = listen_at(path);
    REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, engine->pidfd.get()));
    REQUIRE(keeper.link().hold({1, HeldKind::Node, 0}, listener.get()));
    const UniqueFd slow = server->slow_to_close();
    const int fd = slow.get();
    const auto client = connect_seqpacket(path);
    REQUIRE(client);
    REQUIRE(send_message(client->get(), Bytes{1}, {&fd, 1}));
  }
  kill_engine(*engine);
  keeper.leave();
  for (int i = 0; i < 1000 && connect_seqpacket(path); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  CHECK(connect_seqpacket(path).error().kind() == ErrorCode::Unreachable);
  keeper.join();
  const auto held = keeper.link().recall();
  REQUIRE(held);
  CHECK(held->size() == 2);
  CHECK(keeper.link().release(1));  // as vtpmd, which has another of each node then
  server.reset();                   // it was the last
}

TEST_CASE("orphans: another engine of the instance ends the wait") {
  ImpatientKeeper keeper(std::chrono::seconds(2), 1024);
  const auto zygote = start_zygote();
  auto first = zygote->spawn(), second = zygote->spawn();
  REQUIRE(first);
  REQUIRE(second);
  Pipe control, node, stranger;
  REQUIRE(keeper.link().hold({1, HeldKind::Control, 0}, control.writer.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, first->pidfd.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Node, 0}, node.writer.get()));
  REQUIRE(keeper.link().hold({2, HeldKind::Engine, 0}, first->pidfd.get()));
  REQUIRE(keeper.link().hold({2, HeldKind::Node, 0}, stranger.writer.get()));
  for (auto* pipe : {&control, &node, &stranger})
    pipe->writer.reset();
  kill_engine(*first);
  keeper.leave();
  REQUIRE(control.ended());  // it has seen the end
  keeper.join();
  REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, second->pidfd.get()));
  keeper.leave();
  CHECK(stranger.ended());  // the time of both would be over
  CHECK(node.held());
  // And the end of that one is noticed again.
  kill_engine(*second);
  CHECK(node.ended());
}

TEST_CASE("orphans: nodes leave a quarter of the room to what instances live by") {
  ImpatientKeeper keeper(std::chrono::seconds(1), 16 + 40);
  const Pipe pipe;
  const int fd = pipe.writer.get();
  for (std::uint8_t i = 0; i < 30; ++i)
    REQUIRE(keeper.link().hold({1, HeldKind::Node, i}, fd));
  CHECK(keeper.link().hold({1, HeldKind::Node, 30}, fd).error().kind() == ErrorCode::Exhausted);
  for (std::uint64_t i = 0; i < 10; ++i)
    REQUIRE(keeper.link().hold({i, HeldKind::Control, 0}, fd));
  CHECK(keeper.link().hold({11, HeldKind::Control, 0}, fd).error().kind() == ErrorCode::Exhausted);
  REQUIRE(keeper.link().drop({1, HeldKind::Node, 0}));
  CHECK(keeper.link().hold({11, HeldKind::Control, 0}, fd));
}

TEST_CASE("orphans: vtpmd is told which instance has no room for a node, and everything else is held") {
  const TemporaryDirectory directory;
  const int status = in_child([&] {
    const rlimit few{16 + 128, 16 + 128};
    if (::setrlimit(RLIMIT_NOFILE, &few) != 0) return 2;
    supervisor::Disposal disposal;
    auto keeper =
        supervisor::Keeper::start(std::string(VTPM_BIN_DIR) + "/vtpm-engine", directory.path(""), disposal);
    if (!keeper) return 3;
    const auto copy = [] { return UniqueFd(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)); };
    // 96 have room, less the sockets'. Some descriptors are left to us, which UBSan needs to look at objects.
    for (std::uint8_t i = 0; i < 85; ++i)
      if (!(*keeper)->hold_node("00000000000000aa", 0, i, STDERR_FILENO)) return 7;
    supervisor::HeldInstance instance;
    instance.id = "00000000000000aa";
    instance.control = copy();
    for (std::uint8_t i = 100; i < 120; ++i)
      instance.nodes.push_back({i, copy()});
    if (!(*keeper)->hold(instance)) return 4;
    const auto refused = (*keeper)->hold_node("00000000000000aa", 0, 250, STDERR_FILENO);
    if (!refused && refused.error().kind() == ErrorCode::Exhausted &&
        refused.error().context.find("00000000000000aa") != std::string::npos)
      return (*keeper)->release(instance.id) && (*keeper)->quit() ? 0 : 6;
    return 5;
  });
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("orphans: who waits at a node whose engine died gets an error, not an endless wait") {
  REQUIRE_FUSE();
  ImpatientKeeper keeper(std::chrono::milliseconds(100), 1024);
  const auto zygote = start_zygote();
  auto engine = zygote->spawn();
  REQUIRE(engine);
  REQUIRE(engine->link->power_on());
  REQUIRE(code_of(run(*engine->link, startup_clear())) == 0);
  Place place;
  {
    UniqueFd server = place.mount();
    REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, engine->pidfd.get()));
    REQUIRE(keeper.link().hold({1, HeldKind::Node, 0}, server.get()));
    REQUIRE(engine->link->serve(NodeKind::Managed, std::move(server)));
  }
  int ready[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    keeper.leave();
    const UniqueFd file = open_node(place);
    const Bytes command = get_random(4);
    ::close(ready[1]);
    for (;;) {
      u8 response[64];
      errno = 0;
      if (write_to(file, command) < 0 || ::read(file.get(), response, sizeof response) < 0)
        ::_exit(errno == ECONNABORTED || errno == ENOTCONN ? 0 : 1);
    }
  }
  ::close(ready[1]);
  const UniqueFd began(ready[0]);
  REQUIRE(readable(began.get()));
  kill_engine(*engine);
  keeper.leave();
  const auto pidfd = open_pidfd(pid);
  REQUIRE(pidfd);
  CHECK(readable(pidfd->get()));
  ::kill(pid, SIGKILL);
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}
