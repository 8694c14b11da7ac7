// SPDX-License-Identifier: Apache-2.0
// Socket nodes as programs see them.
#include "tests/integration/socket_node/connected.h"

#include <sys/prctl.h>
#include <sys/wait.h>

using namespace vtpm;
using namespace vtpm::test;

TEST_CASE("socket: bare commands get bare responses, whatever the pieces that they come in") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  CHECK(answer_to(socket, get_random(8)).size() == 20);
  for (const std::uint8_t byte : get_random(16))
    send_all(socket, BytesView(&byte, 1));
  CHECK(receive_response(socket).size() == 28);
}

TEST_CASE("socket: a response comes in one piece, for clients that read once") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  send_all(socket, create_primary(kOwner));
  REQUIRE(comes(socket));
  Bytes response(4096);
  const ssize_t n = ::read(socket.get(), response.data(), response.size());
  REQUIRE(n > 0);
  response.resize(static_cast<std::size_t>(n));
  CHECK(code_of(response) == 0);
}

TEST_CASE("socket: commands that are sent together are run one after another") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  constexpr u16 kCommands = 500;
  Bytes all;
  for (u16 i = 0; i < kCommands; ++i)
    put(all, get_random(static_cast<u16>(1 + i % 32)));
  send_all(socket, all);
  for (u16 i = 0; i < kCommands; ++i)
    REQUIRE(receive_response(socket).size() == 12U + 1 + i % 32);
  CHECK(connected.status().commands == kCommands);
}

TEST_CASE("socket: who closes its own direction only gets the responses, and then the end") {
  const Connected connected;
  const Listener& listener = GENERATE(true, false) ? connected.managed : connected.raw;
  const UniqueFd socket = connect_to(listener);
  Bytes all;
  for (const Bytes& one : {get_random(4), create_primary(kOwner), get_random(5)})
    put(all, one);
  put(all, BytesView(get_random(6)).first(7));
  send_all(socket, all);
  REQUIRE(::shutdown(socket.get(), SHUT_WR) == 0);
  CHECK(receive_response(socket).size() == 16);
  CHECK(code_of(receive_response(socket)) == 0);
  CHECK(receive_response(socket).size() == 17);
  CHECK(has_ended(socket));
}

TEST_CASE("socket: each connection of a managed node has its own objects, which go with it") {
  const Connected connected;
  const UniqueFd other = connect_to(connected.managed);
  {
    const UniqueFd socket = connect_to(connected.managed);
    const Bytes made = answer_to(socket, create_primary(kOwner));
    REQUIRE(code_of(made) == 0);
    CHECK(code_of(answer_to(socket, read_public(handle_in(made)))) == 0);
    CHECK(code_of(answer_to(other, read_public(handle_in(made)))) != 0);
    CHECK(connected.status().spaces == 2);
  }
  eventually([&] { return connected.status().spaces == 1; });
}

TEST_CASE("socket: a raw node keeps objects for clients that connect anew for each command") {
  const Connected connected;
  const auto once = [&](BytesView bytes) { return answer_to(connect_to(connected.raw), bytes); };
  const Bytes made = once(create_primary(kOwner));
  REQUIRE(code_of(made) == 0);
  for (int i = 0; i < 100; ++i)
    REQUIRE(code_of(once(read_public(handle_in(made)))) == 0);
}

TEST_CASE("socket: a second connection of a raw node waits until the first is closed, and is not refused") {
  const Connected connected;
  const Listener another;
  REQUIRE(connected.serve(NodeKind::Raw, another));
  UniqueFd first = connect_to(connected.raw);
  REQUIRE(code_of(answer_to(first, get_random(8))) == 0);
  std::vector<UniqueFd> waiting;
  for (const Listener* listener : {&connected.raw, &another, &connected.raw}) {
    waiting.push_back(connect_to(*listener));
    send_all(waiting.back(), get_random(8));
  }
  // The first is served all the time, and nobody else.
  for (int i = 0; i < 10; ++i)
    REQUIRE(code_of(answer_to(first, get_random(8))) == 0);
  for (const UniqueFd& one : waiting)
    CHECK_FALSE(comes(one, 0));
  first.reset();
  while (!waiting.empty()) {
    std::vector<pollfd> polled;
    for (const UniqueFd& one : waiting)
      polled.push_back({one.get(), POLLIN, 0});
    REQUIRE(::poll(polled.data(), polled.size(), kPatience) == 1);
    const auto served = std::ranges::find_if(polled, [](const pollfd& p) { return p.revents != 0; });
    const auto at = waiting.begin() + (served - polled.begin());
    CHECK(code_of(receive_response(*at)) == 0);
    waiting.erase(at);
  }
}

TEST_CASE("socket: a hundred connections are served side by side") {
  const Connected connected;
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 100; ++i)
    sockets.push_back(connect_to(connected.managed));
  for (std::size_t i = 0; i < sockets.size(); ++i)
    send_all(sockets[i], get_random(static_cast<u16>(1 + i % 60)));
  for (std::size_t i = sockets.size(); i-- > 0;)
    CHECK(receive_response(sockets[i]).size() == 12U + 1 + i % 60);
  CHECK(connected.status().spaces == 100);
  sockets.clear();
  eventually([&] { return connected.status().spaces == 0; });
}

TEST_CASE("socket: a connection that was inherited by a fork lives until the last of both closes it") {
  const Connected connected;
  UniqueFd socket = connect_to(connected.managed);
  const Bytes made = answer_to(socket, create_primary(kOwner));
  REQUIRE(code_of(made) == 0);
  const Bytes question = read_public(handle_in(made));
  int ready[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  const UniqueFd wait(ready[0]);
  UniqueFd go(ready[1]);
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    go.reset();
    char byte = 0;
    (void)!::read(wait.get(), &byte, 1);  // until the parent has closed its own
    std::uint8_t response[4096];
    const bool asked = ::write(socket.get(), question.data(), question.size()) > 0;
    const ssize_t n = asked ? ::read(socket.get(), response, sizeof response) : -1;
    ::_exit(n > 10 && code_of(BytesView(response, static_cast<std::size_t>(n))) == 0 ? 0 : 1);
  }
  socket.reset();
  CHECK(connected.status().spaces == 1);
  go.reset();
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
  eventually([&] { return connected.status().spaces == 0; });
}

TEST_CASE("socket: a listener that is shut down takes its connections with it, and makes room for another") {
  Connected connected;
  // With all connections taken the end is seen, too.
  const UniqueFd holder = connect_to(connected.raw);
  REQUIRE(code_of(answer_to(holder, get_random(8))) == 0);
  const UniqueFd waiting = connect_to(connected.raw);
  const UniqueFd other = connect_to(connected.managed);
  REQUIRE(code_of(answer_to(other, get_random(8))) == 0);
  connected.raw.end();
  CHECK(has_ended(holder));
  CHECK(has_ended(waiting));
  CHECK_FALSE(try_to_connect(connected.raw));
  CHECK(errno == ECONNREFUSED);
  CHECK(code_of(answer_to(other, get_random(8))) == 0);
  std::vector<std::unique_ptr<Listener>> more;
  for (int i = 0; i < 15; ++i) {
    more.push_back(std::make_unique<Listener>());
    REQUIRE(connected.serve(NodeKind::Raw, *more.back()));
  }
  CHECK(code_of(answer_to(connect_to(*more.back()), get_random(8))) == 0);
  const Listener too_many;
  CHECK(connected.serve(NodeKind::Raw, too_many).error().kind() == ErrorCode::Exhausted);
}

TEST_CASE("socket: what does not listen is dropped, and the engine serves on") {
  const Connected connected;
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd peer(pair[1]);
  REQUIRE(connected.engine.link->serve(NodeKind::Managed, UniqueFd(pair[0]), ipc::kChannelSocket));
  CHECK(::write(peer.get(), "x", 1) >= -1);
  UniqueFd idle(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(connected.engine.link->serve(NodeKind::Managed, std::move(idle), ipc::kChannelSocket));
  CHECK(has_ended(peer));
  CHECK(code_of(answer_to(connect_to(connected.managed), get_random(8))) == 0);
}

TEST_CASE("socket: with the TPM off a command ends its connection") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  REQUIRE(code_of(answer_to(socket, get_random(8))) == 0);
  REQUIRE(connected.engine.link->shutdown());
  send_all(socket, get_random(8));
  CHECK(has_ended(socket));
  REQUIRE(connected.engine.link->power_on());
  REQUIRE(code_of(run(*connected.engine.link, startup_clear())) == 0);
  CHECK(code_of(answer_to(connect_to(connected.managed), get_random(8))) == 0);
}
