// SPDX-License-Identifier: Apache-2.0
// A hostile engine: what it answers never gets past EngineLink.
#include "daemon/ipc/engine_link.h"

#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>

using namespace vtpm;
using namespace vtpm::ipc;

namespace {

using Engine = std::function<void(int socket, const FrameHead& request)>;

// transmit()'s outcome with an engine that behaves as given.
struct Outcome {
  std::optional<Bytes> response;
  std::optional<ErrorCode> error;
  std::optional<ErrorCode> error_of_next;  // of one more request over the same link
};

Outcome transmit_to(const Engine& engine) {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  std::thread peer([&engine, socket = std::move(pair.second)] {
    const auto request = receive_transfer(socket.get(), after(std::chrono::seconds(5)));
    if (request) engine(socket.get(), request->head);
  });
  Outcome outcome;
  auto response = link.transmit(tpm::Locality::tenant(), Bytes(12));
  if (response) outcome.response = std::move(*response);
  if (!response) outcome.error = response.error().kind();
  peer.join();
  if (auto next = link.transmit(tpm::Locality::tenant(), Bytes(12)); !next)
    outcome.error_of_next = next.error().kind();
  return outcome;
}

void answer(int socket, const FrameHead& head, BytesView payload) {
  (void)send_message(socket, encode(head, payload));
}

}  // namespace

TEST_CASE("engine link: an honest reply is returned") {
  const auto outcome = transmit_to([](int socket, const FrameHead& request) {
    answer(socket, {Verb::Transmit, true, false, request.id, 0}, Bytes{1, 2});
  });
  CHECK(outcome.response == Bytes{1, 2});
}

TEST_CASE("engine link: a wrong id, verb, kind or size is malformed, and the link given up") {
  const Engine engine =
      GENERATE(Engine([](int s, const FrameHead& r) {
                 answer(s, {Verb::Transmit, true, false, r.id + 1, 0}, {});
               }),
               Engine([](int s, const FrameHead& r) {
                 answer(s, {Verb::Shutdown, true, false, r.id, 0}, {});
               }),
               Engine([](int s, const FrameHead& r) {
                 answer(s, {Verb::Transmit, false, false, r.id, 0}, {});
               }),
               Engine([](int s, const FrameHead& r) {
                 answer(s, {Verb::Transmit, true, false, r.id, 0}, Bytes(5000));
               }),
               Engine([](int s, const FrameHead& r) {
                 answer(s, {Verb::Transmit, true, false, r.id, 77}, {});
               }),
               Engine([](int s, const FrameHead&) { (void)send_message(s, Bytes(3)); }),
               Engine([](int s, const FrameHead&) { (void)send_message(s, Bytes(70000)); }));
  const auto outcome = transmit_to(engine);
  CHECK(outcome.error == ErrorCode::Malformed);
  CHECK(outcome.error_of_next.has_value());
}

TEST_CASE("engine link: a descriptor that nobody asked for is malformed") {
  const auto outcome = transmit_to([](int socket, const FrameHead& request) {
    (void)send_message(socket, encode({Verb::Transmit, true, false, request.id, 0}, {}), {&socket, 1});
  });
  CHECK(outcome.error == ErrorCode::Malformed);
}

TEST_CASE("engine link: an engine that goes away is unreachable") {
  const auto outcome = transmit_to([](int, const FrameHead&) {});
  CHECK(outcome.error == ErrorCode::Unreachable);
  CHECK(outcome.error_of_next == ErrorCode::Unreachable);
}

TEST_CASE("engine link: an error reply has its code and text") {
  const auto outcome = transmit_to([](int socket, const FrameHead& request) {
    answer(socket, {Verb::Transmit, true, false, request.id, static_cast<std::uint32_t>(ErrorCode::Corrupt)},
           as_bytes("why"));
  });
  CHECK(outcome.error == ErrorCode::Corrupt);
}

TEST_CASE("engine link: one that says much, but not the answer, is not listened to beyond the deadline") {
  auto pair = std::move(*make_seqpacket_pair());
  const UniqueFd same(::fcntl(pair.first.get(), F_DUPFD_CLOEXEC, 3));
  EngineLink link(std::move(pair.first));
  const Bytes stale = encode({Verb::Transmit, true, false, 1, 0}, {});
  for (int i = 0; i < 20; ++i)
    REQUIRE(send_message(pair.second.get(), stale));
  link.set_deadline(after(std::chrono::milliseconds(-1)));
  const auto taken = link.take_over();
  REQUIRE_FALSE(taken);
  CHECK(taken.error().kind() == ErrorCode::Timeout);
  CHECK(receive_transfer(same.get(), after(std::chrono::milliseconds(0))));  // there was more
}

TEST_CASE("engine link: a take-over goes on where it was given up for the moment, and asks once") {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  const int engine = pair.second.get();
  const auto soon = [] { return after(std::chrono::milliseconds(0)); };
  link.set_deadline(soon());
  CHECK(link.take_over().error().kind() == ErrorCode::Timeout);
  const auto asked = receive_transfer(engine, soon());
  REQUIRE(asked);
  CHECK(asked->head.verb == Verb::Status);
  answer(engine, {Verb::Transmit, true, false, 1, 0}, {});  // to the process before
  CHECK(link.take_over().error().kind() == ErrorCode::Timeout);
  CHECK_FALSE(receive_transfer(engine, soon()));
  answer(engine, {Verb::Status, true, false, asked->head.id, 0}, encode(EngineStatus()));
  CHECK(link.take_over());
  link.set_deadline({});
  std::thread peer([&] {
    const auto request = receive_transfer(engine, after(std::chrono::seconds(5)));
    if (request) answer(engine, {Verb::Transmit, true, false, request->head.id, 0}, Bytes{7});
  });
  CHECK(link.transmit(tpm::Locality::tenant(), Bytes(12)).value() == Bytes{7});
  peer.join();
  pair.second.reset();
  CHECK(link.take_over().error().kind() == ErrorCode::Unreachable);
  CHECK(link.take_over().error().kind() == ErrorCode::Unreachable);
}

TEST_CASE("engine link: who asks an engine to serve may come back for the answer") {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  const int engine = pair.second.get();
  const UniqueFd node(::open("/dev/null", O_RDWR | O_CLOEXEC));
  REQUIRE(link.ask_to_serve({NodeKind::Managed, node.get(), kChannelFuse}));
  for (int i = 0; i < 2; ++i)
    CHECK(link.served().error().kind() == ErrorCode::Timeout);
  const auto asked = receive_transfer(engine, after(std::chrono::seconds(0)));
  REQUIRE(asked);
  CHECK(asked->head.verb == Verb::Serve);
  CHECK(asked->fds.size() == 1);
  SECTION("it does") {
    answer(engine, {Verb::Serve, true, false, asked->head.id, 0}, {});
    CHECK(link.served());
  }
  SECTION("it does not, and can be asked again") {
    const auto busy = static_cast<std::uint32_t>(ErrorCode::Busy);
    answer(engine, {Verb::Serve, true, false, asked->head.id, busy}, as_bytes("why"));
    CHECK(link.served().error().kind() == ErrorCode::Busy);
    CHECK(link.status_if_free(after(std::chrono::seconds(0))).error().kind() == ErrorCode::Timeout);
  }
  SECTION("it answers something else, and is given up") {
    answer(engine, {Verb::Serve, true, false, asked->head.id + 1, 0}, {});
    CHECK(link.served().error().kind() == ErrorCode::Malformed);
    CHECK(link.served().error().kind() == ErrorCode::Unreachable);
  }
}

TEST_CASE("engine link: a status that comes too late is dropped, and the link is used on") {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  const int engine = pair.second.get();
  const auto soon = [] { return after(std::chrono::milliseconds(0)); };
  CHECK(link.status_if_free(soon()).error().kind() == ErrorCode::Timeout);
  // It is not asked twice.
  CHECK(link.status_if_free(soon()).error().kind() == ErrorCode::Busy);
  const auto asked = receive_transfer(engine, soon());
  REQUIRE(asked);
  CHECK(asked->head.verb == Verb::Status);
  CHECK_FALSE(receive_transfer(engine, soon()));
  EngineStatus old;
  old.commands = 1;
  answer(engine, {Verb::Status, true, false, asked->head.id, 0}, encode(old));
  SECTION("before the answer to another request") {
    std::thread peer([&] {
      const auto request = receive_transfer(engine, after(std::chrono::seconds(5)));
      if (request) answer(engine, {Verb::Transmit, true, false, request->head.id, 0}, Bytes{7});
    });
    CHECK(link.transmit(tpm::Locality::tenant(), Bytes(12)).value() == Bytes{7});
    peer.join();
  }
  SECTION("before the answer to the next one of its kind") {
    std::thread peer([&] {
      const auto request = receive_transfer(engine, after(std::chrono::seconds(5)));
      EngineStatus now;
      now.commands = 2;
      if (request) answer(engine, {Verb::Status, true, false, request->head.id, 0}, encode(now));
    });
    CHECK(link.status_if_free(after(std::chrono::seconds(5)))->commands == 2);
    peer.join();
  }
  SECTION("but not twice, and nothing else in its place") {
    answer(engine, {Verb::Status, true, false, asked->head.id, 0}, encode(old));
    CHECK(link.transmit(tpm::Locality::tenant(), Bytes(12)).error().kind() == ErrorCode::Malformed);
    CHECK(link.status_if_free(soon()).error().kind() == ErrorCode::Unreachable);
  }
}

namespace {

constexpr EngineLink::Served kTwoNodes[] = {{NodeKind::Managed, STDERR_FILENO, kChannelSocket},
                                            {NodeKind::Raw, STDERR_FILENO, kChannelSocket}};

// serve_all()'s outcome with an engine that answers once it has both requests.
Result<std::vector<Result<>>> serve_with(EngineLink& link, int engine, std::uint32_t second_status,
                                         std::uint32_t second_id) {
  std::thread peer([=] {
    const auto first = receive_transfer(engine, after(std::chrono::seconds(5)));
    const auto second = receive_transfer(engine, after(std::chrono::seconds(5)));
    if (!first || !second) return;
    answer(engine, {Verb::Serve, true, false, first->head.id, 0}, {});
    answer(engine, {Verb::Serve, true, false, second->head.id + second_id, second_status}, {});
  });
  auto outcomes = link.serve_all(kTwoNodes);
  peer.join();
  return outcomes;
}

}  // namespace

TEST_CASE("engine link: several nodes are asked for before the first answer, and each has its own") {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  const auto outcomes =
      serve_with(link, pair.second.get(), static_cast<std::uint32_t>(ErrorCode::Exhausted), 0);
  REQUIRE(outcomes);
  REQUIRE(outcomes->size() == 2);
  CHECK(outcomes->at(0));
  CHECK(outcomes->at(1).error().kind() == ErrorCode::Exhausted);
  CHECK(serve_with(link, pair.second.get(), 0, 0)->at(1));
  CHECK(serve_with(link, pair.second.get(), 0, 1).error().kind() == ErrorCode::Malformed);
  CHECK(link.serve_all(kTwoNodes).error().kind() == ErrorCode::Unreachable);
}

TEST_CASE(
    "engine link: its socket is duplicated while somebody waits for the engine, but not once given up") {
  auto pair = std::move(*make_seqpacket_pair());
  EngineLink link(std::move(pair.first));
  std::thread caller([&] { CHECK(link.transmit(tpm::Locality::tenant(), Bytes(12)).value() == Bytes{7}); });
  const auto request = receive_transfer(pair.second.get(), after(std::chrono::seconds(5)));
  const auto copy = link.duplicate();
  if (request) answer(pair.second.get(), {Verb::Transmit, true, false, request->head.id, 0}, Bytes{7});
  caller.join();
  REQUIRE(request);
  REQUIRE(copy);
  answer(pair.second.get(), {Verb::Shutdown, true, false, 0, 0}, {});
  CHECK(receive_transfer(copy->get(), after(std::chrono::seconds(5)))->head.verb == Verb::Shutdown);
  pair.second.reset();
  CHECK(link.shutdown().error().kind() == ErrorCode::Unreachable);
  CHECK(link.duplicate().error().kind() == ErrorCode::Unreachable);
}

TEST_CASE("engine exit: statuses are described") {
  CHECK(EngineExit{1, 0}.describe() == "exit status 0");
  CHECK(EngineExit{1, W_EXITCODE(0, 31)}.describe() == "killed by signal 31 (SIGSYS: forbidden system call)");
  CHECK(EngineExit{1, W_EXITCODE(0, 9)}.describe() == "killed by signal 9 (SIGKILL)");
  CHECK(EngineExit{1, W_EXITCODE(kExitBug, 0)}.describe() ==
        "exit status 70 (internal error; its log says which)");
}

TEST_CASE("zygote: a program that is not there is a configuration error that names it") {
  const auto zygote = Zygote::start("/nonexistent/vtpm-engine", STDERR_FILENO);
  REQUIRE_FALSE(zygote);
  CHECK(zygote.error().kind() == ErrorCode::Configuration);
  CHECK(zygote.error().context.find("/nonexistent/vtpm-engine") != std::string::npos);
}

TEST_CASE("zygote: a program that is no engine is a configuration error") {
  const auto zygote = Zygote::start("/bin/true", STDERR_FILENO);
  REQUIRE_FALSE(zygote);
  CHECK(zygote.error().kind() == ErrorCode::Configuration);
}
