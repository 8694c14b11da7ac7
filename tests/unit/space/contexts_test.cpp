// SPDX-License-Identifier: Apache-2.0
// Contexts that clients save and load themselves, the context gap, and objects that the TPM flushes.
#include "tests/unit/space/fixture.h"

#include <deque>

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using wire::SessionType;
using Handles = std::vector<std::uint32_t>;

namespace {

Bytes save(Client& client, std::uint32_t handle) {
  const Bytes response = client(wire::context_save(handle));
  REQUIRE(wire::code_of(response) == 0);
  return wire::body_of(response);
}

Bytes digest_of(Client& client, std::uint32_t session) {
  const Bytes response = client(wire::policy_get_digest(session));
  REQUIRE(wire::code_of(response) == 0);
  return wire::body_of(response);
}

// The context counter of the TPM moves on.
void advance_context_counter(Client& client, int count) {
  const std::uint32_t session = client.handle(wire::start_session(SessionType::Hmac));
  for (int i = 0; i < count; ++i)
    (void)client.handle(wire::context_load(save(client, session)));
  REQUIRE(client.code(wire::flush(session)) == 0);
}

Bytes hierarchy_control(bool owner_enabled) {
  return wire::command(0x121, {wire::kPlatform}, {{}},
                       wire::join({wire::u32s(kOwner), Bytes{static_cast<std::uint8_t>(owner_enabled)}}));
}

}  // namespace

TEST_CASE("contexts: an object that one client saved, another loads, under a handle of its own") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  const std::uint32_t key = one.handle(wire::create_primary(kOwner, "key"));
  const Bytes context = save(one, key);
  (void)two.handle(wire::create_primary(kOwner, "other"));
  const std::uint32_t copy = two.handle(wire::context_load(context));
  CHECK(copy == 0x80000001);
  CHECK(two.public_of(copy) == one.public_of(key));
  CHECK(one.handle(wire::context_load(context)) == 0x80000001);  // an object's context may be loaded again
}

TEST_CASE("contexts: an object that is swapped out can be saved, flushed and made persistent") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  const std::uint32_t key = one.handle(wire::create_primary(kOwner, "key"));
  const Bytes area = one.public_of(key);
  const auto push_out = [&] {
    for (int i = 0; i < 3; ++i)
      (void)two.handle(wire::create_primary(kOwner, std::to_string(i)));
  };
  push_out();
  const Bytes context = save(one, key);
  push_out();
  REQUIRE(one.code(wire::evict_control(key, 0x81000000)) == 0);
  CHECK(two.public_of(0x81000000) ==
        area);  // persistent objects are everybody's, and need a slot while in use
  push_out();
  const std::size_t flushes = fixture.tpm.counts[0x165];
  CHECK(one.code(wire::flush(key)) == 0);
  CHECK(fixture.tpm.counts[0x165] == flushes);  // nothing to do for the TPM
  CHECK(one.handles(0x80000000).empty());
  CHECK(one.code(wire::flush(key)) == 0x1cb);
  REQUIRE(one.code(wire::evict_control(0x81000000, 0x81000000)) == 0);
  CHECK(one.public_of(one.handle(wire::context_load(context))) == area);
}

TEST_CASE("contexts: the oldest saved session does not stop the others when the context gap is full") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  const std::uint32_t session = one.handle(wire::start_session(SessionType::Policy));
  REQUIRE(one.code(wire::policy_command_code(session, 0x17b)) == 0);
  const Bytes digest = digest_of(one, session);
  const bool by_client = GENERATE(false, true);
  const bool orphan = by_client && GENERATE(false, true);
  Bytes context;
  if (by_client) {
    context = save(one, session);
    if (orphan) one.close();
  }
  std::vector<std::uint32_t> others;
  for (int i = 0; i < 4; ++i)
    others.push_back(two.handle(wire::start_session(SessionType::Policy)));
  advance_context_counter(two, 0x10000 - 20);

  for (int round = 0; round < 30; ++round)
    for (const std::uint32_t other : others)
      (void)digest_of(two, other);
  // The client's context was renewed behind its back; the one that it has still serves.
  if (by_client) {
    Client& loader = orphan ? two : one;
    CHECK(loader.handle(wire::context_load(context)) == session);
    CHECK(digest_of(loader, session) == digest);
    CHECK(loader.code(wire::context_load(context)) == 0x1cb);
  } else {
    CHECK(digest_of(one, session) == digest);
  }
  CHECK(fixture.manager.counters().evictions == 0);
}

TEST_CASE("contexts: a session saved before there was a resource manager is given up when the gap is full") {
  Fixture fixture;
  const auto run = [&](BytesView command) {
    const BytesView response = fixture.tpm.transmit(tpm::Locality::tenant(), command).value();
    return Bytes(response.begin(), response.end());
  };
  const Bytes response = run(wire::start_session(SessionType::Policy));
  const Bytes context = wire::body_of(run(wire::context_save(wire::handle_of(response))));
  Client client(fixture);
  CHECK(client.handles(0x03000000) == Handles{0x02000000});
  SECTION("but can be loaded until then") {
    CHECK(client.handle(wire::context_load(context)) == wire::handle_of(response));
    CHECK(client.handles(0x02000000) == Handles{0x03000000});
  }
  SECTION("so that nothing is stuck for ever") {
    advance_context_counter(client, 0x10000 - 10);
    std::vector<std::uint32_t> sessions;
    for (int i = 0; i < 4; ++i)
      sessions.push_back(client.handle(wire::start_session(SessionType::Policy)));
    for (int round = 0; round < 10; ++round)
      for (const std::uint32_t session : sessions)
        (void)digest_of(client, session);
    CHECK(client.code(wire::context_load(context)) == 0x1cb);
    CHECK(fixture.manager.counters().evictions == 1);
  }
}

TEST_CASE("contexts: what takes a hierarchy's objects takes them from every space, in the TPM or out of it") {
  struct Taking {
    const char* name;
    std::uint32_t code, by, hierarchy;
  };
  const auto taking = GENERATE(Taking{"Clear", 0x126, wire::kLockout, kOwner},
                               Taking{"ChangeEPS", 0x124, wire::kPlatform, wire::kEndorsement},
                               Taking{"ChangePPS", 0x125, wire::kPlatform, wire::kPlatform});
  INFO(taking.name);
  Fixture fixture;
  Client one(fixture), two(fixture);
  for (const char* name : {"a", "b", "c"}) {
    (void)one.handle(wire::create_primary(taking.hierarchy, name));
    (void)two.handle(wire::create_primary(wire::kNull, name));
  }
  // Each has been out and in again: its saved context is still known.
  for (std::uint32_t i = 0; i < 3; ++i)
    (void)one.public_of(0x80000000 + i);
  const Bytes kept = two.public_of(0x80000001);
  REQUIRE(two.code(wire::command(taking.code, {taking.by}, {{}})) == 0);
  CHECK(one.handles(0x80000000).empty());
  CHECK(one.code(wire::read_public(0x80000000)) == 0x910);  // REFERENCE_H0, as of any that is not there
  CHECK(two.handles(0x80000000).size() == 3);
  CHECK(two.public_of(0x80000001) == kept);
}

TEST_CASE("contexts: an object of a disabled hierarchy does not come back with the hierarchy") {
  Fixture fixture;
  Client client(fixture);
  for (const char* name : {"a", "b", "c", "d", "e"})
    (void)client.handle(wire::create_primary(kOwner, name));
  REQUIRE(client.code(hierarchy_control(false)) == 0);
  REQUIRE(client.code(hierarchy_control(true)) == 0);
  CHECK(client.handles(0x80000000).empty());
  CHECK(client.handle(wire::create_primary(kOwner, "a")) == 0x80000000);
}

TEST_CASE("contexts: after a power cycle spaces are empty, and go on") {
  Fixture fixture;
  Client client(fixture);
  (void)client.handle(wire::create_primary(kOwner, "a"));
  (void)client.handle(wire::start_session(SessionType::Policy));
  fixture.tpm.power_cycle();
  fixture.manager.power_cycled();
  CHECK(client.handles(0x80000000).empty());
  CHECK(client.handles(0x02000000).empty());
  CHECK(client.code(wire::read_public(0x80000000)) == 0x910);
  CHECK(client.handle(wire::create_primary(kOwner, "a")) == 0x80000000);
}
