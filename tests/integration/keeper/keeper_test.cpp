// SPDX-License-Identifier: Apache-2.0
// The keeper: what is held outlives the vtpmd that gave it, and nothing that a peer sends loses it.
#include "tests/integration/keeper/fixture.h"

#include <vtpm/os/process.h>

#include <fcntl.h>
#include <sys/resource.h>

using namespace vtpm;
using namespace vtpm::test;
using ipc::HeldKey;
using ipc::HeldKind;
using ipc::Verb;

namespace {

HeldKey control_of(std::uint64_t id) {
  return {id, HeldKind::Control, 0};
}

bool exited(int status) {
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// One request in raw bytes on a connection of its own; the connection.
UniqueFd send_raw(const KeeperProcess& keeper, BytesView bytes, std::span<const int> fds = {}) {
  auto socket = connect_seqpacket(keeper.path());
  REQUIRE(socket);
  REQUIRE(send_message(socket->get(), bytes, fds));
  return std::move(*socket);
}

}  // namespace

TEST_CASE("keeper: what one vtpmd gave, the next gets, and only a release closes it") {
  KeeperProcess keeper;
  Pipe first, second;
  REQUIRE(keeper.link().hold({1, HeldKind::Control, 0}, first.writer.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Node, 3}, first.writer.get()));
  REQUIRE(keeper.link().hold({0xfedcba9876543210, HeldKind::Container, 0}, second.writer.get()));
  first.writer.reset();
  second.writer.reset();
  keeper.leave();
  auto held = keeper.join().recall();
  REQUIRE(held);
  REQUIRE(held->size() == 3);
  CHECK((*held)[0].key == HeldKey{1, HeldKind::Control, 0});
  CHECK((*held)[1].key == HeldKey{1, HeldKind::Node, 3});
  CHECK((*held)[2].key == HeldKey{0xfedcba9876543210, HeldKind::Container, 0});
  REQUIRE(write_all((*held)[0].fd.get(), as_bytes("x")));
  CHECK(readable(first.reader.get()));
  held->clear();
  CHECK(second.held());
  REQUIRE(keeper.link().release(0xfedcba9876543210));
  CHECK(second.ended());
  CHECK(keeper.link().recall()->size() == 2);
  REQUIRE(keeper.link().drop({1, HeldKind::Node, 3}));
  CHECK(keeper.link().recall()->size() == 1);
  REQUIRE(keeper.link().release(1));
  REQUIRE(keeper.link().release(1));
  CHECK(keeper.link().recall()->empty());
}

TEST_CASE("keeper: what is held under a key a second time takes the place of the first") {
  KeeperProcess keeper;
  Pipe first, second;
  REQUIRE(keeper.link().hold(control_of(1), first.writer.get()));
  first.writer.reset();
  REQUIRE(keeper.link().hold(control_of(1), second.writer.get()));
  CHECK(first.ended());
  CHECK(second.held());
}

TEST_CASE("keeper: it quits when it is told to and holds nothing, not before") {
  KeeperProcess keeper;
  const Pipe pipe;
  REQUIRE(keeper.link().hold(control_of(1), pipe.writer.get()));
  const auto refused = keeper.link().quit();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind() == ErrorCode::Conflict);
  REQUIRE(keeper.link().release(1));
  REQUIRE(keeper.link().quit());
  CHECK(exited(keeper.end()));
}

TEST_CASE("keeper: left alone with nothing to hold, it ends; with something, it stays") {
  KeeperProcess keeper;
  const Pipe pipe;
  REQUIRE(keeper.link().hold(control_of(1), pipe.writer.get()));
  keeper.leave();
  keeper.join();
  CHECK(keeper.lives());
  REQUIRE(keeper.link().release(1));
  keeper.leave();
  CHECK(exited(keeper.end()));
}

TEST_CASE("keeper: signals of a terminal and of a service manager's group leave it alone, SIGTERM ends it") {
  KeeperProcess keeper;
  CHECK(::getpgid(keeper.pid()) != ::getpgid(0));
  CHECK(::getsid(keeper.pid()) != ::getsid(0));
  for (const int signal : {SIGHUP, SIGINT, SIGPIPE})
    REQUIRE(::kill(keeper.pid(), signal) == 0);
  CHECK(keeper.link().recall());
  CHECK(keeper.lives());
  CHECK(WTERMSIG(keeper.end(SIGTERM)) == SIGTERM);
}

TEST_CASE("keeper: while nobody is connected, an engine's end closes its socket, and the rest is kept") {
  KeeperProcess keeper;
  const auto zygote = start_zygote();
  auto engine = zygote->spawn(), other = zygote->spawn();
  REQUIRE(engine);
  REQUIRE(other);
  Pipe control, node, container, others;
  REQUIRE(keeper.link().hold(control_of(1), control.writer.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Engine, 0}, engine->pidfd.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Container, 0}, container.writer.get()));
  REQUIRE(keeper.link().hold({1, HeldKind::Node, 0}, node.writer.get()));
  REQUIRE(keeper.link().hold({2, HeldKind::Engine, 0}, other->pidfd.get()));
  REQUIRE(keeper.link().hold(control_of(2), others.writer.get()));
  for (auto* pipe : {&control, &node, &container, &others})
    pipe->writer.reset();
  REQUIRE(signal_process(engine->pidfd.get(), SIGKILL));
  REQUIRE(readable(engine->pidfd.get()));
  CHECK(keeper.link().recall()->size() == 6);  // a vtpmd that is there decides itself
  keeper.leave();
  CHECK(control.ended());
  CHECK(node.held());
  CHECK(container.held());
  CHECK(others.held());
  const auto held = keeper.join().recall();
  REQUIRE(held);
  REQUIRE(held->size() == 5);
  CHECK((*held)[0].key == HeldKey{1, HeldKind::Engine, 0});
  CHECK(has_ended((*held)[0].fd.get()));
  CHECK((*held)[1].key == HeldKey{1, HeldKind::Container, 0});
  CHECK((*held)[2].key == HeldKey{1, HeldKind::Node, 0});
}

TEST_CASE("keeper: an engine lives on without its vtpmd, answers the next one, and ends with the release") {
  KeeperProcess keeper;
  auto zygote = start_zygote();
  auto engine = zygote->spawn();
  REQUIRE(engine);
  REQUIRE(engine->link->power_on());
  REQUIRE(code_of(run(*engine->link, startup_clear())) == 0);
  const auto copy = engine->link->duplicate();
  REQUIRE(copy);
  REQUIRE(keeper.link().hold(control_of(1), copy->get()));
  // Requests whose answers nobody takes, as of a vtpmd that is killed in the middle of its work.
  const Bytes extend = pcr_extend(16, tpm::Sha256{1});
  for (std::uint32_t id = 1; id <= 3; ++id) {
    Bytes payload{0};
    put(payload, extend);
    REQUIRE(send_message(copy->get(), ipc::encode({Verb::Transmit, false, false, id, 0}, payload)));
  }
  keeper.leave();
  engine->link.reset();
  zygote.reset();
  CHECK_FALSE(has_ended(engine->pidfd.get()));
  auto held = keeper.join().recall();
  REQUIRE(held);
  {
    ipc::EngineLink next(std::move((*held)[0].fd));
    REQUIRE(next.take_over());
    tpm::Sha256 expected{};
    for (int i = 0; i < 3; ++i)
      expected = tpm::extend(expected, tpm::Sha256{1});
    CHECK(pcr_value(run(next, pcr_read(16))) == Bytes(expected.begin(), expected.end()));
  }
  REQUIRE(keeper.link().release(1));
  CHECK_FALSE(readable(engine->pidfd.get(), 100));  // `copy` is another end of it
  held->clear();
  const_cast<UniqueFd&>(*copy).reset();
  CHECK(readable(engine->pidfd.get()));
}

TEST_CASE("keeper: a peer that sends what is no request is cut off, and nothing is lost") {
  KeeperProcess keeper;
  Pipe pipe;
  REQUIRE(keeper.link().hold(control_of(1), pipe.writer.get()));
  keeper.leave();
  const int fd = pipe.writer.get();
  const std::vector<int> two{fd, fd}, one{fd};
  const Bytes key = ipc::encode(control_of(2)), id(8);
  const auto frame = [](Verb verb, BytesView payload, bool more = false) {
    return ipc::encode({verb, false, more, 1, 0}, payload);
  };
  struct Case {
    Bytes bytes;
    std::vector<int> fds;
  };
  const std::vector<Case> cases{{{1, 2, 3}, {}},
                                {Bytes(ipc::kFrameHeaderSize), one},
                                {frame(Verb::Hold, key), {}},
                                {frame(Verb::Hold, key), two},
                                {frame(Verb::Hold, Bytes(11)), one},
                                {frame(Verb::Recall, {}), one},
                                {frame(Verb::Release, Bytes(9)), {}},
                                {frame(Verb::Quit, id), {}},
                                {Bytes(ipc::kFrameHeaderSize + ipc::kMaxPayload + 1), {}},
                                {frame(Verb::Hold, Bytes(ipc::kMaxPayload), true), one}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    INFO("case " << i);
    const UniqueFd socket = send_raw(keeper, cases[i].bytes, cases[i].fds);
    CHECK(readable(socket.get()));
    const auto answer = ipc::receive_transfer(socket.get(), after(std::chrono::seconds(10)));
    CHECK((!answer && answer.error().kind() == ErrorCode::Unreachable));
  }
  CHECK(keeper.join().recall()->size() == 1);
  pipe.writer.reset();
  CHECK(pipe.held());
}

TEST_CASE("keeper: a request that is not for it, or names nothing, is answered with an error") {
  KeeperProcess keeper;
  const Pipe pipe;
  const int fd = pipe.writer.get();
  REQUIRE(keeper.link().hold(control_of(1), fd));
  keeper.leave();
  const auto refused = [&](Verb verb, BytesView payload, std::span<const int> fds = {}) {
    const UniqueFd socket = send_raw(keeper, ipc::encode({verb, false, false, 7, 0}, payload), fds);
    const auto answer = ipc::receive_transfer(socket.get(), after(std::chrono::seconds(10)));
    REQUIRE(answer);
    return answer->head.status == static_cast<std::uint32_t>(ErrorCode::Malformed);
  };
  const Bytes unknown_kind{0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0};
  CHECK(refused(Verb::Hold, unknown_kind, {&fd, 1}));
  CHECK(refused(Verb::Hold, {}, {&fd, 1}));
  CHECK(refused(Verb::Drop, unknown_kind));
  CHECK(refused(Verb::Release, {}));
  CHECK(refused(Verb::Recall, Bytes(3)));
  CHECK(refused(Verb::Status, {}));
  CHECK(refused(Verb::Spawn, {}, {&fd, 1}));
  CHECK(keeper.join().recall()->size() == 1);
}

TEST_CASE("keeper: 10000 instances are its limit, and its descriptors are") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;  // for the recall
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  KeeperProcess keeper;
  const Pipe pipe;
  std::uint64_t held = 0;
  Result<> outcome;
  while (held <= 10'000 && (outcome = keeper.link().hold(control_of(held), pipe.writer.get())))
    ++held;
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().kind() == ErrorCode::Exhausted);
  CHECK((held == 10'000 || held + 16 == limit.rlim_max));
  REQUIRE(keeper.link().release(0));
  REQUIRE(keeper.link().hold(control_of(20'000), pipe.writer.get()));
  keeper.leave();
  if (held + 64 > limit.rlim_max) return;  // this process has no room for all of them
  CHECK(keeper.join().recall()->size() == held);
}

TEST_CASE("keeper: its jail has no open, no socket and no fork") {
  const KeeperProcess keeper;
  const auto status = read_file("/proc/" + std::to_string(keeper.pid()) + "/status", 65536);
  REQUIRE(status);
  const std::string text(as_text(*status));
  CHECK(text.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(text.find("Seccomp:\t2") != std::string::npos);
}
