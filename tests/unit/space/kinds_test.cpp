// SPDX-License-Identifier: Apache-2.0
// The raw space, and the supervisor's.
#include "tests/unit/space/fixture.h"

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using wire::SessionType;
using Handles = std::vector<std::uint32_t>;

TEST_CASE("raw space: it has the TPM's own limits, whatever others do") {
  Fixture fixture;
  Client raw(fixture, space::Kind::Raw), managed(fixture);
  const bool busy = GENERATE(false, true);
  const auto neighbour = [&](const char* name) {
    if (!busy) return;
    (void)managed.handle(wire::create_primary(kOwner, name));
    (void)managed.handle(wire::start_session(SessionType::Policy));
  };
  for (const char* name : {"a", "b", "c"}) {
    (void)raw.handle(wire::create_primary(kOwner, name));
    (void)raw.handle(wire::start_session(SessionType::Policy));
    neighbour(name);
  }
  CHECK(raw.handles(0x80000000) == Handles{0x80000000, 0x80000001, 0x80000002});
  CHECK(raw.code(wire::create_primary(kOwner, "d")) == 0x902);       // OBJECT_MEMORY
  CHECK(raw.code(wire::start_session(SessionType::Hmac)) == 0x903);  // SESSION_MEMORY
  neighbour("d");
  CHECK(raw.code(wire::flush(0x80000001)) == 0);
  neighbour("e");
  CHECK(raw.handle(wire::create_primary(kOwner, "d")) == 0x80000001);
}

TEST_CASE("raw space: an object has the number that the TPM gave it") {
  Fixture fixture;
  Client raw(fixture, space::Kind::Raw);
  REQUIRE(raw.code(wire::evict_control(raw.handle(wire::create_primary(kOwner, "p")), 0x81000001)) == 0);
  REQUIRE(raw.code(wire::flush(0x80000000)) == 0);
  // HMAC_Start: meanwhile the persistent key has the first slot.
  const Bytes start = wire::command(0x15b, {0x81000001}, {{}}, Bytes{0, 0, 0x00, 0x10});
  (void)raw(start);  // the first use of a protected object may be answered TPM_RC_RETRY
  REQUIRE(raw.handle(start) >= 0x80000001);
  for (const std::uint32_t object : raw.handles(0x80000000))
    CHECK(raw.code(wire::flush(object)) == 0);
  CHECK(raw.handle(start) == 0x80000001);
  CHECK(raw.handles(0x80000000) == Handles{0x80000001});
  REQUIRE(raw.code(wire::evict_control(0x81000001, 0x81000001)) == 0);
}

TEST_CASE("raw space: it is kept over opens, and has one opener") {
  Fixture fixture;
  Bytes area;
  std::uint32_t session = 0;
  {
    Client raw(fixture, space::Kind::Raw);
    CHECK(fixture.manager.open(space::Kind::Raw).error().kind() == ErrorCode::Busy);
    area = raw.public_of(raw.handle(wire::create_primary(kOwner, "a")));
    session = raw.handle(wire::start_session(SessionType::Policy));
  }
  Client managed(fixture);
  for (const char* name : {"a", "b", "c", "d"})
    (void)managed.handle(wire::create_primary(kOwner, name));
  CHECK(managed.code(wire::policy_get_digest(session)) == 0x910);
  Client raw(fixture, space::Kind::Raw);
  CHECK(raw.public_of(0x80000000) == area);
  CHECK(raw.code(wire::policy_get_digest(session)) == 0);
}

TEST_CASE("raw space: three objects of its own and a persistent one do not fit, as on the TPM alone") {
  Fixture fixture;
  Client managed(fixture);
  REQUIRE(managed.code(wire::evict_control(managed.handle(wire::create_primary(kOwner, "p")), 0x81000001)) ==
          0);
  Client raw(fixture, space::Kind::Raw);
  for (const char* name : {"a", "b", "c"})
    (void)raw.handle(wire::create_primary(kOwner, name));
  CHECK(raw.code(wire::read_public(0x81000001)) == 0x902);
  CHECK(managed.code(wire::read_public(0x81000001)) == 0);
  CHECK(raw.code(wire::read_public(0x80000002)) == 0);
  REQUIRE(managed.code(wire::evict_control(0x81000001, 0x81000001)) == 0);
}

TEST_CASE("supervisor: neither limits nor a full TPM stop it, and it sees nobody's objects") {
  Fixture fixture({4, 3, 3});
  Client one(fixture), raw(fixture, space::Kind::Raw);
  for (const char* name : {"a", "b", "c"}) {
    (void)one.handle(wire::create_primary(kOwner, name));
    (void)raw.handle(wire::create_primary(kOwner, name));
    (void)raw.handle(wire::start_session(SessionType::Policy));
  }
  Client supervisor(fixture, space::Kind::Supervisor);
  CHECK(supervisor.handles(0x80000000).empty());
  for (std::uint32_t i = 0; i < 5; ++i)
    CHECK(supervisor.handle(wire::create_primary(kOwner, std::to_string(i))) == 0x80000000 + i);
  for (int i = 0; i < 5; ++i)
    CHECK(supervisor.code(wire::start_session(SessionType::Policy)) == 0);
  supervisor.close();
  CHECK(one.handles(0x80000000).size() == 3);
  CHECK(raw.code(wire::create_primary(kOwner, "d")) == 0x902);
}
