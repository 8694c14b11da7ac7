// SPDX-License-Identifier: Apache-2.0
// Real engines over real device nodes at their limits. No test waits for a rate: each limit is so low that
// what is held back is held back for hours, until the limit is raised.
#include "daemon/engine/quota.h"
#include "tests/integration/fuse_node/served.h"
#include "tests/support/durable.h"

#include <signal.h>
#include <sys/time.h>

#include <thread>

using namespace vtpm;
using namespace vtpm::test;
using namespace std::chrono_literals;

namespace {

constexpr u32 kCommandSize = 0x142;
constexpr u32 kNvSpace = 0x14b;
constexpr u32 kObjectMemory = 0x902;
constexpr u32 kSessionHandles = 0x905;

// One microsecond in each second: the next command after one that takes a millisecond waits a quarter of an
// hour.
ipc::EngineLimits nearly_nothing() {
  ipc::EngineLimits limits;
  limits.busy_us_per_second = 1;
  return limits;
}

// Has used up what nearly_nothing() gives.
struct Exhausted : Served {
  Exhausted() {
    REQUIRE(engine.link->set_limits(nearly_nothing()));
    const UniqueFd fd = open_node(managed);
    REQUIRE(code_of(ask(fd, create_primary(kOwner))) == 0);
  }
  std::uint64_t throttled() const { return engine.link->status()->throttled; }
  std::uint64_t commands() const { return engine.link->status()->commands; }
};

Bytes nv_undefine(u32 index) {
  return authorized_two(0x122, kOwner, index, {});
}

std::size_t state_size(const Served& served) {
  return served.engine.link->permanent_state()->size();
}

Bytes start_session() {
  return command(0x176, Writer()
                            .add(u32{0x40000007})
                            .add(u32{0x40000007})
                            .add(u16{16})
                            .add(BytesView(Bytes(16)))
                            .add(u16{0})
                            .add(u8{0})
                            .add(u16{0x0010})
                            .add(u16{0x000b}));
}

}  // namespace

TEST_CASE("quotas: a throttled command waits, counts once, and runs when the limit is raised") {
  REQUIRE_FUSE();
  const Exhausted served;
  const auto before = served.commands();
  const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
  REQUIRE(write_to(fd, get_random(8)) > 0);
  for (int i = 0; i < 20; ++i) {
    CHECK(ready(fd) == 0);  // neither readable nor writable
    Bytes response(64);
    CHECK(error_of(::read(fd.get(), response.data(), response.size())) == EAGAIN);
    CHECK(error_of(write_to(fd, get_random(8))) == EBUSY);
  }
  CHECK(served.throttled() == 1);
  CHECK(served.commands() == before);
  REQUIRE(served.engine.link->set_limits({}));
  pollfd p{fd.get(), POLLIN, 0};
  REQUIRE(::poll(&p, 1, 30'000) == 1);
  CHECK(code_of(read_from(fd)) == 0);
  CHECK(ready(fd) == POLLOUT);
  CHECK(served.throttled() == 1);
  CHECK(served.commands() == before + 1);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
  CHECK(served.throttled() == 1);
}

TEST_CASE("quotas: a malformed command to a device file waits and counts as any other") {
  REQUIRE_FUSE();
  const Exhausted served;
  const auto before = served.commands();
  const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
  Bytes bad = get_random(8);
  bad.resize(GENERATE(std::size_t{11}, std::size_t{8192}, std::size_t{8193}, std::size_t{20'000}));
  REQUIRE(write_to(fd, bad) == static_cast<ssize_t>(bad.size()));
  CHECK(ready(fd) == 0);
  CHECK(error_of(write_to(fd, bad)) == EBUSY);
  CHECK(served.throttled() == 1);
  CHECK(served.commands() == before);
  REQUIRE(served.engine.link->set_limits({}));
  pollfd p{fd.get(), POLLIN, 0};
  REQUIRE(::poll(&p, 1, 30'000) == 1);
  CHECK(code_of(read_from(fd)) == kCommandSize);
  CHECK(read_from(fd).empty());
  CHECK(served.commands() == before + 1);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("quotas: many wait at once, on both nodes, and all are served when the limit is raised") {
  REQUIRE_FUSE();
  const Exhausted served;
  std::vector<UniqueFd> files;
  for (int i = 0; i < 20; ++i)
    files.push_back(open_node(served.managed, O_NONBLOCK));
  files.push_back(open_node(served.raw, O_NONBLOCK));
  for (const auto& fd : files)
    REQUIRE(write_to(fd, get_random(8)) > 0);
  CHECK(served.throttled() == files.size());
  files[3].reset();  // with its command
  REQUIRE(served.engine.link->set_limits({}));
  for (const auto& fd : files) {
    if (!fd) continue;
    pollfd p{fd.get(), POLLIN, 0};
    REQUIRE(::poll(&p, 1, 30'000) == 1);
    CHECK(code_of(read_from(fd)) == 0);
  }
}

TEST_CASE("quotas: a throttled instance does not hold up another, and its supervisor is exempt") {
  REQUIRE_FUSE();
  const Exhausted served;
  const UniqueFd waiting = open_node(served.managed, O_NONBLOCK);
  REQUIRE(write_to(waiting, get_random(8)) > 0);
  const Served other;
  const UniqueFd fd = open_node(other.managed);
  for (int i = 0; i < 50; ++i) {
    REQUIRE(code_of(ask(fd, get_random(8))) == 0);
    REQUIRE(code_of(run(*served.engine.link, get_random(8))) == 0);
  }
  CHECK(ready(waiting) == 0);
  CHECK(other.engine.link->status()->throttled == 0);
}

TEST_CASE("quotas: what the supervisor does is not charged") {
  REQUIRE_FUSE();
  const Served served;
  REQUIRE(served.engine.link->set_limits(nearly_nothing()));
  for (int i = 0; i < 5; ++i)
    REQUIRE(code_of(run(*served.engine.link, create_primary(kOwner))) == 0);
  const UniqueFd fd = open_node(served.managed);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
  CHECK(served.engine.link->status()->throttled == 0);
}

TEST_CASE("quotas: a throttled command is taken back by a signal, and by the close of its file") {
  REQUIRE_FUSE();
  const Exhausted served;
  const int status = in_child([&] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    const itimerval often{{0, 5000}, {0, 5000}};
    ::setitimer(ITIMER_REAL, &often, nullptr);
    const Bytes bytes = get_random(8);
    UniqueFd fd;
    while (!fd)
      fd = open_node(served.managed);
    if (::write(fd.get(), bytes.data(), bytes.size()) != -1 || errno != EINTR) return 1;
    pollfd p{fd.get(), POLLIN | POLLOUT, 0};
    while (::poll(&p, 1, -1) < 0) {
    }
    return p.revents == POLLOUT ? 0 : 2;  // as before it
  });
  CHECK(status == 0);
  CHECK(served.throttled() == 1);
  const int killed = in_child([&] {
    const Bytes bytes = get_random(8);
    const UniqueFd fd = open_node(served.managed);
    std::thread end([] {
      std::this_thread::sleep_for(20ms);
      ::kill(::getpid(), SIGKILL);
    });
    return ::write(fd.get(), bytes.data(), bytes.size()) < 0 ? 1 : 2;
  });
  CHECK(WIFSIGNALED(killed));
  // Nothing of them is left to be run.
  const auto before = served.commands();
  REQUIRE(served.engine.link->set_limits({}));
  const UniqueFd fd = open_node(served.managed);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
  CHECK(served.commands() == before + 1);
}

TEST_CASE("quotas: a command that waits costs no CPU time") {
  REQUIRE_FUSE();
  const Exhausted served;
  const UniqueFd fd = open_node(served.managed, O_NONBLOCK);
  REQUIRE(write_to(fd, get_random(8)) > 0);
  clockid_t clock{};
  REQUIRE(::clock_getcpuclockid(served.engine.pid, &clock) == 0);
  const auto used = [&] {
    timespec time{};
    REQUIRE(::clock_gettime(clock, &time) == 0);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  const auto before = used();
  std::this_thread::sleep_for(500ms);
  CHECK(used() - before < 50ms);
}

TEST_CASE("quotas: NV is refused above its limit without having run, and free again when something goes") {
  REQUIRE_FUSE();
  const Served served;
  const std::size_t empty = state_size(served);
  ipc::EngineLimits limits;
  limits.nv_bytes = empty + 8000;
  REQUIRE(served.engine.link->set_limits(limits));
  const UniqueFd fd = open_node(served.managed);
  u32 index = kIndex;
  u32 code = 0;
  while ((code = code_of(ask(fd, nv_define(index, 1000)))) == 0) {
    CHECK(state_size(served) <= limits.nv_bytes);
    ++index;
  }
  CHECK(code == kNvSpace);
  CHECK(index == kIndex + 7);
  CHECK(served.engine.link->status()->nv_bytes == state_size(served));
  CHECK(code_of(ask(fd, nv_define(index, 100))) == 0);  // which has room
  // What is there can be used, the supervisor is exempt, and the raw node is not.
  CHECK(code_of(ask(fd, nv_write(kIndex, Bytes(500, 1)))) == 0);
  const UniqueFd raw = open_node(served.raw);
  CHECK(code_of(ask(raw, nv_define(index + 1, 1000))) == kNvSpace);
  CHECK(code_of(ask(fd, nv_undefine(kIndex))) == 0);
  CHECK(code_of(ask(fd, nv_define(kIndex, 1000))) == 0);
  CHECK(code_of(run(*served.engine.link, nv_define(index + 1, 1000))) == 0);
  // A key that is made persistent needs room, too; one that is removed does not.
  const u32 object = handle_in(ask(fd, create_primary(kOwner)));
  CHECK(code_of(ask(fd, evict_control(object, 0x81000100))) == kNvSpace);
  REQUIRE(served.engine.link->set_limits({}));
  CHECK(code_of(ask(fd, evict_control(object, 0x81000100))) == 0);
  REQUIRE(served.engine.link->set_limits(limits));
  CHECK(code_of(ask(fd, evict_control(0x81000100, 0x81000100))) == 0);
}

TEST_CASE("quotas: the state grows by no more than is assumed") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  std::size_t before = state_size(served);
  const auto grows_as_assumed = [&](const Bytes& bytes) {
    REQUIRE(code_of(ask(fd, bytes)) == 0);
    const std::size_t after = state_size(served);
    const std::size_t assumed = engine::permanent_growth(bytes);
    INFO(after - before << " bytes, " << assumed << " assumed");
    CHECK(after > before);
    CHECK(after - before <= assumed);
    before = after;
  };
  for (const u16 size : {u16{0}, u16{8}, u16{2048}})
    grows_as_assumed(nv_define(kIndex + size, size));
  // An orderly counter, and a password and a policy.
  const auto define = [](u32 index, u32 attributes, std::size_t auth, std::size_t policy, u16 size) {
    Writer area;
    area.add(index).add(u16{0x000b}).add(attributes);
    area.add(static_cast<u16>(policy)).add(BytesView(Bytes(policy, 1))).add(size);
    return authorized(0x12a, kOwner,
                      Writer()
                          .add(static_cast<u16>(auth))
                          .add(BytesView(Bytes(auth, 1)))
                          .add(static_cast<u16>(area.size()))
                          .add(area));
  };
  grows_as_assumed(define(0x01900001, 0x04020012, 0, 0, 8));
  grows_as_assumed(define(0x01900002, 0x04020002, 20, 32, 200));
  u32 persistent = 0x81000200;
  for (const Bytes& key :
       {create_primary(kOwner), create_rsa_primary(kOwner, 2048, 1), create_rsa_primary(kOwner, 3072, 1)}) {
    const Bytes made = ask(fd, key);
    if (code_of(made) != 0) continue;  // a libtpms without that size
    grows_as_assumed(evict_control(handle_in(made), persistent++));
    REQUIRE(code_of(ask(fd, flush_context(handle_in(made)))) == 0);
    before = state_size(served);
  }
}

TEST_CASE("quotas: spaces, objects and sessions are limited as they are told") {
  REQUIRE_FUSE();
  const Served served;
  ipc::EngineLimits limits;
  limits.spaces = 2;
  limits.objects_per_space = 1;
  limits.sessions_per_space = 3;
  REQUIRE(served.engine.link->set_limits(limits));
  const UniqueFd a = open_node(served.managed);
  UniqueFd b = open_node(served.managed);
  REQUIRE(a);
  REQUIRE(b);
  CHECK(error_of(open_node(served.managed).get()) == EBUSY);
  CHECK(code_of(ask(a, create_primary(kOwner))) == 0);
  CHECK(code_of(ask(a, create_primary(kOwner))) == kObjectMemory);
  CHECK(code_of(ask(b, create_primary(kOwner))) == 0);
  for (int i = 0; i < 3; ++i)
    CHECK(code_of(ask(a, start_session())) == 0);
  CHECK(code_of(ask(a, start_session())) == kSessionHandles);
  CHECK(code_of(ask(b, start_session())) == 0);
  b.reset();
  CHECK(open_node(served.managed));
}

TEST_CASE("quotas: limits that cannot be are refused, and the ones before stay") {
  const auto zygote = start_zygote();
  const auto spawned = zygote->spawn();
  REQUIRE(spawned);
  ipc::EngineLimits limits;
  limits.spaces = 0;
  CHECK(spawned->link->set_limits(limits).error().kind() == ErrorCode::Malformed);
  limits.spaces = 1;
  CHECK(spawned->link->set_limits(limits));  // before the first power-on
  CHECK(spawned->link->power_on());
  CHECK(spawned->link->set_limits(limits));
}

TEST_CASE("quotas: a durable TPM answers above its NV limit, too, and nothing was committed") {
  const auto zygote = start_zygote();
  DurableTpm tpm(*zygote);
  REQUIRE(tpm.start());
  const auto size = tpm.link().permanent_state()->size();
  ipc::EngineLimits limits;
  limits.nv_bytes = size + 100;
  REQUIRE(tpm.link().set_limits(limits));
  const auto sequence = tpm.link().status()->sequence;
  REQUIRE_FUSE();
  Place place;
  REQUIRE(tpm.link().serve(NodeKind::Managed, place.mount()));
  const UniqueFd fd = open_node(place);
  CHECK(code_of(ask(fd, nv_define(kIndex, 1000))) == kNvSpace);
  CHECK(tpm.link().status()->sequence == sequence);
  CHECK(code_of(ask(fd, nv_define(kIndex, 8))) == 0);
  CHECK(tpm.link().status()->sequence > sequence);
}
