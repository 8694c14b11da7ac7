// SPDX-License-Identifier: Apache-2.0
// Socket nodes and clients that lie, stall, vanish or come in numbers: the others are served all the time.
#include "tests/integration/fuse_node/served.h"
#include "tests/integration/socket_node/connected.h"

#include <vtpm/os/process.h>

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include <fstream>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr int kPassRights = 83;  // SO_PASSRIGHTS

Bytes header(u16 tag, u32 size) {
  const Writer writer = Writer().add(tag).add(size).add(u32{0x17b});
  const BytesView view = writer;
  return {view.begin(), view.end()};
}

void is_served(const Connected& connected) {
  CHECK(code_of(answer_to(connect_to(connected.managed), get_random(8))) == 0);
}

bool is_asleep(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  return line.find(") S ") != std::string::npos;
}

// Whether the process comes to rest: sleeps whenever it is looked at for a while. One in a busy loop runs.
bool sleeps(pid_t pid) {
  int in_a_row = 0;
  for (int i = 0; i < 2000 && in_a_row < 50; ++i) {
    ::poll(nullptr, 0, 2);
    in_a_row = is_asleep(pid) ? in_a_row + 1 : 0;
  }
  return in_a_row == 50;
}

}  // namespace

TEST_CASE("socket: a size that no command has is TPM_RC_COMMAND_SIZE, and the end of the connection") {
  const Connected connected;
  const u32 size = GENERATE(u32{0}, u32{9}, u32{4097}, u32{65536}, u32{0xffffffff});
  const UniqueFd socket = connect_to(connected.managed);
  REQUIRE(code_of(answer_to(socket, get_random(8))) == 0);
  Bytes lie = header(0x8001, size);
  lie.resize(GENERATE(std::size_t{6}, std::size_t{10}, std::size_t{5000}));
  send_all(socket, lie);
  CHECK(code_of(receive_response(socket)) == kCommandSize);
  CHECK(has_ended(socket));
  is_served(connected);
}

TEST_CASE("socket: a command of the largest size is the TPM's to answer, and one of the least") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  for (const std::size_t size : {std::size_t{10}, std::size_t{4096}}) {
    Bytes large = header(0x8001, static_cast<u32>(size));
    large.resize(size);
    CHECK(code_of(answer_to(socket, large)) != kCommandSize + 0x10000);
    CHECK(code_of(answer_to(socket, get_random(8))) == 0);
  }
}

TEST_CASE("socket: a command with an unknown tag is answered, and the connection goes on") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  Bytes all;
  for (int i = 0; i < 1000; ++i)
    put(all, header(0x1234, 10));
  put(all, get_random(8));
  send_all(socket, all);
  for (int i = 0; i < 1000; ++i)
    REQUIRE(code_of(receive_response(socket)) == kBadTag);
  CHECK(code_of(receive_response(socket)) == 0);
}

TEST_CASE("socket: connections that send nothing, or half a command, and vanish leave nothing") {
  const Connected connected;
  for (int i = 0; i < 1000; ++i) {
    const UniqueFd socket = connect_to(i % 2 == 0 ? connected.managed : connected.raw);
    const Bytes whole = get_random(8);
    send_all(socket, BytesView(whole).first(static_cast<std::size_t>(i) % whole.size()));
  }
  is_served(connected);
  CHECK(code_of(answer_to(connect_to(connected.raw), get_random(8))) == 0);
  eventually([&] { return connected.status().spaces == 0; });
}

TEST_CASE("socket: who never reads its responses is held back, and gets them all when it reads at last") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  const Bytes question = get_random(48);
  // Until nothing more goes in: the engine takes no further command then.
  std::size_t sent = 0;
  for (int waited = 0; waited < 40;) {
    const ssize_t n = ::send(socket.get(), question.data() + sent % question.size(),
                             question.size() - sent % question.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      waited = 0;
      continue;
    }
    REQUIRE(errno == EAGAIN);
    is_served(connected);
    ++waited;
  }
  CHECK(sleeps(connected.engine.pid));
  const std::size_t commands = sent / question.size();
  CHECK(commands > 100);
  CHECK(connected.status().commands < commands + 1000);
  for (std::size_t i = 0; i < commands; ++i)
    REQUIRE(receive_response(socket).size() == 60);
  is_served(connected);
}

TEST_CASE("socket: of hundreds of connections those without a place wait for one, and nobody spins") {
  const Connected connected;
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 300; ++i) {
    sockets.push_back(connect_to(connected.managed));
    send_all(sockets.back(), get_random(8));
  }
  const auto answered = [&] {
    std::size_t count = 0;
    for (const UniqueFd& one : sockets)
      if (comes(one, 0)) ++count;
    return count;
  };
  eventually([&] { return answered() >= 128; });
  CHECK(sleeps(connected.engine.pid));
  CHECK(answered() == 128);
  CHECK(connected.status().spaces == 128);
  // Each that goes makes room for one.
  while (!sockets.empty()) {
    const auto one = std::ranges::find_if(sockets, [](const UniqueFd& fd) { return comes(fd, 0); });
    if (one == sockets.end()) {
      ::poll(nullptr, 0, 1);
      continue;
    }
    REQUIRE(code_of(receive_response(*one)) == 0);
    sockets.erase(one);
  }
  is_served(connected);
}

TEST_CASE(
    "socket: who opens all the connections there may be does not keep others out, nor ends those at work") {
  const Connected connected;
  const Listener another;
  REQUIRE(connected.serve(NodeKind::Managed, another));
  const UniqueFd working = connect_to(connected.managed);
  std::vector<UniqueFd> idle;
  for (int i = 1; i < 128; ++i)
    idle.push_back(connect_to(connected.managed));
  eventually([&] { return connected.status().spaces == 128; });
  std::vector<UniqueFd> newcomers;
  for (const Listener* listener : {&connected.managed, &another}) {
    newcomers.push_back(connect_to(*listener));
    send_all(newcomers.back(), get_random(8));
  }
  eventually([&] {
    REQUIRE(code_of(answer_to(working, get_random(8))) == 0);
    return comes(newcomers[0], 100) && comes(newcomers[1], 100);
  });
  for (const UniqueFd& one : newcomers)
    CHECK(code_of(receive_response(one)) == 0);
  // The oldest of those that did nothing, and no more than that.
  CHECK(has_ended(idle[0]));
  CHECK(has_ended(idle[1]));
  for (std::size_t i = 2; i < idle.size(); ++i)
    CHECK_FALSE(comes(idle[i], 0));
  CHECK(connected.status().spaces == 128);
}

TEST_CASE(
    "socket: an engine that is out of descriptors leaves connections in the queue, and comes back to them") {
  const Connected connected;
  is_served(connected);
  rlimit limit{};
  const auto pid = connected.engine.pid;
  REQUIRE(::prlimit(pid, RLIMIT_NOFILE, nullptr, &limit) == 0);
  CHECK(limit.rlim_max == 192);
  const rlimit few{6, limit.rlim_max};  // those that it has: 0 to 3 and the two listeners
  REQUIRE(::prlimit(pid, RLIMIT_NOFILE, &few, nullptr) == 0);
  const UniqueFd socket = connect_to(connected.managed);
  send_all(socket, get_random(8));
  CHECK_FALSE(comes(socket, 250));
  REQUIRE(::prlimit(pid, RLIMIT_NOFILE, &limit, nullptr) == 0);
  CHECK(code_of(receive_response(socket)) == 0);
}

TEST_CASE("socket: descriptors that a client sends along are not kept") {
  const Connected connected;
  // As a socket that another program made, or that of an older kernel.
  const int yes = 1;
  (void)::setsockopt(connected.managed.copy().get(), SOL_SOCKET, kPassRights, &yes, sizeof yes);
  const UniqueFd socket = connect_to(connected.managed);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const int sent = writer.get();
  REQUIRE(send_message(socket.get(), get_random(8), {&sent, 1}));
  writer.reset();
  CHECK(code_of(receive_response(socket)) == 0);
  CHECK(has_ended(reader));
}

TEST_CASE("socket: a client that is gone while its key is made cancels it") {
  const Connected connected;
  const Listener& listener = GENERATE(true, false) ? connected.managed : connected.raw;
  for (u32 i = 0; i < 50 && connected.status().cancelled == 0; ++i) {
    UniqueFd socket = connect_to(listener);
    send_all(socket, create_rsa_primary(kOwner, 3072, i));
    ::poll(nullptr, 0, 5);
    // Nothing is answered yet: the key is being made.
    if (comes(socket, 0)) continue;
    socket.reset();
    CHECK(code_of(answer_to(connect_to(listener), get_random(8))) == 0);
  }
  CHECK(connected.status().cancelled == 1);
}

TEST_CASE("socket: a client that has only sent its last cancels nothing") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  for (u32 i = 0; i < 5; ++i)
    send_all(socket, create_rsa_primary(kOwner, 2048, i));
  REQUIRE(::shutdown(socket.get(), SHUT_WR) == 0);
  for (u32 i = 0; i < 5; ++i)
    CHECK(code_of(receive_response(socket)) == 0);
  CHECK(has_ended(socket));
  CHECK(connected.status().cancelled == 0);
}

TEST_CASE("socket: a client with long commands does not hold up one with short ones") {
  const Connected connected;
  const UniqueFd maker = connect_to(connected.managed);
  constexpr u32 kKeys = 6;
  for (u32 i = 0; i < kKeys; ++i)
    send_all(maker, create_rsa_primary(kOwner, 2048, i));
  const UniqueFd socket = connect_to(connected.managed);
  unsigned extends = 0;
  for (u32 made = 0; made < kKeys; ++extends) {
    REQUIRE(code_of(answer_to(socket, pcr_extend(16, {}))) == 0);
    while (made < kKeys && comes(maker, 0)) {
      REQUIRE(code_of(receive_response(maker)) == 0);
      ++made;
    }
  }
  CHECK(extends > 20 * kKeys);
}

TEST_CASE("socket: who floods it with malformed commands is served in turn with the others") {
  const Connected connected;
  constexpr int kBad = 300;
  // The next command after one that takes a millisecond waits a quarter of an hour.
  ipc::EngineLimits limits;
  limits.busy_us_per_second = 1;
  REQUIRE(connected.engine.link->set_limits(limits));
  const UniqueFd flood = connect_to(connected.managed);
  const UniqueFd other = connect_to(connected.managed);
  REQUIRE(code_of(answer_to(flood, create_primary(kOwner))) == 0);
  const auto before = connected.status().commands;
  Bytes bad = get_random(8);
  bad[1] = 0x33;
  Bytes all;
  for (int i = 0; i < kBad; ++i)
    put(all, bad);
  send_all(flood, all);
  send_all(other, get_random(8));
  eventually([&] { return connected.status().throttled == 2; });
  CHECK(connected.status().commands == before);
  CHECK_FALSE(comes(flood, 0));
  // Two commands, and one more in each second: one of each.
  ipc::EngineLimits two;
  two.commands_per_second = 1;
  two.command_burst = 2;
  REQUIRE(connected.engine.link->set_limits(two));
  CHECK(code_of(receive_response(other)) == 0);
  int answered = 0;
  REQUIRE(::ioctl(flood.get(), FIONREAD, &answered) == 0);
  CHECK(answered < kBad / 2 * static_cast<int>(tpm::kHeaderSize));
  // And all of them count, that which ends the connection, too.
  REQUIRE(connected.engine.link->set_limits({}));
  send_all(flood, Bytes(10));
  for (int i = 0; i < kBad; ++i)
    REQUIRE(code_of(receive_response(flood)) == kBadTag);
  CHECK(code_of(receive_response(flood)) == kCommandSize);
  CHECK(has_ended(flood));
  CHECK(connected.status().commands == before + kBad + 2);
}

TEST_CASE(
    "socket: a command is charged the CPU time that it cost, not that for which its engine was stopped") {
  const Connected connected;
  const UniqueFd socket = connect_to(connected.managed);
  const pid_t pid = connected.engine.pid;
  const auto cpu_time = [&] {
    clockid_t clock{};
    timespec time{};
    REQUIRE(::clock_getcpuclockid(pid, &clock) == 0);
    REQUIRE(::clock_gettime(clock, &time) == 0);
    return time.tv_sec * 1'000'000 + time.tv_nsec / 1000;  // us
  };
  bool stopped = false;
  for (u32 i = 0; i < 50 && !stopped; ++i) {
    const auto before = connected.status();
    const auto used = cpu_time();
    send_all(socket, create_rsa_primary(kOwner, 3072, i));
    ::poll(nullptr, 0, 10);
    REQUIRE(::kill(pid, SIGSTOP) == 0);
    ::poll(nullptr, 0, 500);
    stopped = !comes(socket, 0);  // in its command
    REQUIRE(::kill(pid, SIGCONT) == 0);
    const Bytes made = receive_response(socket);
    REQUIRE(code_of(made) == 0);
    const auto charged = connected.status().busy_us - before.busy_us;
    CHECK(charged > 1000);
    CHECK(static_cast<long>(charged) <= cpu_time() - used + 10'000);
    REQUIRE(code_of(answer_to(socket, command(0x165, Writer().add(handle_in(made))))) == 0);
  }
  CHECK(stopped);
}

TEST_CASE("socket: a raw socket and a raw device file have one client among them") {
  REQUIRE_FUSE();
  const Connected connected;
  Place place;
  REQUIRE(connected.engine.link->serve(NodeKind::Raw, place.mount()));
  {
    const UniqueFd socket = connect_to(connected.raw);
    REQUIRE(code_of(answer_to(socket, get_random(8))) == 0);
    CHECK(error_of(open_node(place).get()) == EBUSY);
  }
  // The close of the socket is seen by the file at once.
  UniqueFd file = open_node(place);
  REQUIRE(file);
  const UniqueFd socket = connect_to(connected.raw);
  send_all(socket, get_random(8));
  CHECK(code_of(ask(file, get_random(8))) == 0);
  CHECK_FALSE(comes(socket, 0));
  file.reset();
  CHECK(code_of(receive_response(socket)) == 0);
}

TEST_CASE("socket: nodes that are asked for together are served before the commands that wait at others") {
  Connected connected;
  constexpr std::size_t kClients = 8;
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < kClients; ++i) {
    clients.push_back(connect_to(connected.managed));
    REQUIRE(code_of(answer_to(clients.back(), get_random(4))) == 0);
  }
  const std::uint64_t before = connected.status().commands;
  const int engine = connected.engine.pidfd.get();
  REQUIRE(signal_process(engine, SIGSTOP));
  for (u32 i = 0; i < kClients; ++i)
    send_all(clients[i], create_rsa_primary(kOwner, 2048, i));
  std::vector<std::unique_ptr<Listener>> listeners;
  std::vector<UniqueFd> copies;
  std::vector<ipc::EngineLink::Served> nodes;
  for (std::size_t i = 0; i < kClients; ++i) {
    listeners.push_back(std::make_unique<Listener>());
    copies.push_back(listeners.back()->copy());
    nodes.push_back({NodeKind::Managed, copies.back().get(), ipc::kChannelSocket});
  }
  std::thread wakes([engine] {
    ::poll(nullptr, 0, 200);  // until all are asked for; fewer are no error
    (void)signal_process(engine, SIGCONT);
  });
  const auto served = connected.engine.link->serve_all(nodes);
  const std::uint64_t meanwhile = connected.status().commands - before;
  wakes.join();
  REQUIRE(served);
  for (const auto& one : *served)
    CHECK(one);
  CHECK(meanwhile <= kClients / 2);
}
