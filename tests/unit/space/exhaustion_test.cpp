// SPDX-License-Identifier: Apache-2.0
// More sessions wanted than a TPM has: a real libtpms, and a clock of the test's.
#include "tests/unit/space/fixture.h"

#include <deque>

using namespace vtpm;
using namespace vtpm::test;
using namespace std::chrono_literals;
using wire::SessionType;

namespace {

const Bytes kStart = wire::start_session(SessionType::Policy);

// A client that wants a session at all times: when its own was taken it asks for another.
struct Greedy {
  explicit Greedy(Fixture& fixture) : client(fixture), since(fixture.now) {}

  void step() {
    if (session && client.code(wire::policy_get_digest(*session)) != 0) {
      session.reset();
      since = client.fixture.now;
    }
    if (session) return;
    const auto outcome = client.execute(kStart);
    const Bytes* response = std::get_if<Bytes>(&outcome);
    if (response == nullptr) return;
    REQUIRE(wire::code_of(*response) == 0);
    session = wire::handle_of(*response);
    longest = std::max(longest, client.fixture.now - since);
    ++sessions;
  }

  Client client;
  std::optional<std::uint32_t> session;
  space::Clock::time_point since;
  space::Clock::duration longest{};
  int sessions = 0;
};

}  // namespace

TEST_CASE(
    "exhaustion: a hundred clients that hold sessions all get one within four seconds, again and again") {
  Fixture fixture;
  std::deque<Greedy> clients;
  for (int i = 0; i < 100; ++i)
    clients.emplace_back(fixture);
  for (int tick = 0; tick < 300; ++tick, fixture.now += 100ms)
    for (Greedy& client : clients)
      client.step();
  for (const Greedy& client : clients) {
    CHECK(client.longest <= 4s);
    CHECK(client.sessions >= 5);  // in 30 s
  }
}

TEST_CASE("exhaustion: a hoarder cannot starve the others") {
  Fixture fixture;
  Client hoarder(fixture);
  while (std::holds_alternative<Bytes>(hoarder.execute(kStart)))
    if (hoarder.handles(0x02000000).size() == 64) break;
  REQUIRE(fixture.tpm.handles(0x02000000).size() + fixture.tpm.handles(0x03000000).size() == 64);
  CHECK(hoarder.code(kStart) == 0x905);  // its limit is the TPM's: SESSION_HANDLES

  std::deque<Greedy> others;
  for (int i = 0; i < 20; ++i)
    others.emplace_back(fixture);
  for (int tick = 0; tick < 100; ++tick, fixture.now += 100ms) {
    for (int i = 0; i < 5; ++i)
      (void)hoarder.execute(kStart);
    for (Greedy& client : others)
      client.step();
  }
  for (const Greedy& client : others) {
    CHECK(client.longest <= 4s);
    CHECK(client.sessions == 1);  // nobody took it away again
  }
  CHECK(fixture.manager.counters().evictions >= 20);
}

TEST_CASE("exhaustion: who waits is served in order, and who is gone is passed over") {
  Fixture fixture;
  Client holder(fixture), first(fixture), second(fixture), third(fixture);
  for (int i = 0; i < 64; ++i)
    (void)holder.handle(kStart);
  CHECK(first.waits(kStart));
  CHECK(second.waits(kStart));
  CHECK(third.waits(kStart));
  REQUIRE(holder.code(wire::flush(0x03000005)) == 0);
  CHECK(third.waits(kStart));
  fixture.manager.withdraw(first.id);
  CHECK(third.waits(kStart));
  CHECK(second.handle(kStart) == 0x03000005);
  CHECK(third.waits(kStart));
  holder.close();
  CHECK(third.code(kStart) == 0);
}

TEST_CASE("exhaustion: the supervisor never waits") {
  Fixture fixture;
  Client holder(fixture), waiter(fixture), supervisor(fixture, space::Kind::Supervisor);
  for (int i = 0; i < 64; ++i)
    (void)holder.handle(kStart);
  CHECK(waiter.waits(kStart));
  CHECK(supervisor.code(kStart) == 0);
  CHECK(fixture.manager.counters().evictions == 1);
  CHECK(waiter.waits(kStart));
}

TEST_CASE("exhaustion: sessions that were saved and left behind are taken too") {
  Fixture fixture;
  for (int i = 0; i < 64; ++i) {
    Client client(fixture);
    REQUIRE(client.code(wire::context_save(client.handle(kStart))) == 0);
  }
  Client client(fixture);
  CHECK(client.waits(kStart));
  fixture.now += 2s;
  CHECK(client.code(kStart) == 0);
}

TEST_CASE("exhaustion: limits of a space are answered as by a full TPM") {
  Fixture fixture({2, 4, 5});
  Client client(fixture), other(fixture);
  CHECK(fixture.manager.open(space::Kind::Managed).error().kind() == ErrorCode::Exhausted);
  const Client supervisor(fixture, space::Kind::Supervisor);  // is not counted
  for (int i = 0; i < 4; ++i)
    (void)client.handle(wire::hash_sequence_start());
  CHECK(client.code(wire::hash_sequence_start()) == 0x902);
  for (int i = 0; i < 5; ++i)
    (void)client.handle(kStart);
  CHECK(client.code(kStart) == 0x905);
  CHECK(other.code(kStart) == 0);
  CHECK(client.code(wire::flush(0x80000002)) == 0);
  CHECK(client.handle(wire::hash_sequence_start()) == 0x80000002);
}
