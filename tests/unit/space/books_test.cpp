// SPDX-License-Identifier: Apache-2.0
// What the resource manager remembers of contexts, and who has to make room: where a wrong entry would not
// show at once.
#include "tests/unit/space/fixture.h"

using namespace vtpm;
using namespace vtpm::test;
using namespace std::chrono_literals;
using wire::kOwner;
using wire::SessionType;
using Handles = std::vector<std::uint32_t>;

namespace {

const Bytes kStart = wire::start_session(SessionType::Policy);
constexpr std::uint32_t kGetCapability = 0x17a, kContextLoad = 0x161;

Bytes save(Client& client, std::uint32_t handle) {
  const Bytes response = client(wire::context_save(handle));
  REQUIRE(wire::code_of(response) == 0);
  return wire::body_of(response);
}

// With a byte more than the command has.
Bytes lengthened(Bytes command) {
  command.push_back(0);
  command[5] = static_cast<std::uint8_t>(command.size());
  return command;
}

// An HMAC key that policy sessions of this digest alone may use.
Bytes create_policy_key(BytesView policy) {
  const Bytes type = {0x00, 0x08, 0x00, 0x0b, 0x00, 0x04, 0x00, 0x32};
  const Bytes rest = {0x00, 0x05, 0x00, 0x0b, 0, 0};
  const Bytes area = wire::join({type, wire::sized(policy), rest});
  return wire::command(0x131, {kOwner}, {{}},
                       wire::join({Bytes{0, 4, 0, 0, 0, 0}, wire::sized(area), Bytes(6)}));
}

// HMAC-SHA-256 with an empty key: that of a session which is neither bound nor salted.
Bytes unkeyed_hmac(BytesView message) {
  const auto inner = tpm::sha256(wire::join({Bytes(64, 0x36), message}));
  const auto outer = tpm::sha256(wire::join({Bytes(64, 0x5c), inner}));
  return {outer.begin(), outer.end()};
}

}  // namespace

TEST_CASE("books: a session that its command ends is its client's no more") {
  Fixture fixture;
  Client client(fixture);
  const std::uint32_t session = client.handle(kStart);
  REQUIRE(client.code(wire::policy_command_code(session, 0x155)) == 0);
  const Bytes digest = client(wire::policy_get_digest(session));
  const std::uint32_t key = client.handle(create_policy_key(BytesView(digest).last(32)));
  const auto hmac = [&](std::uint8_t attributes) {
    return client.code(wire::command(0x155, {key}, {{session, attributes}},
                                     wire::join({wire::sized(Bytes(8)), Bytes{0x00, 0x10}})));
  };
  REQUIRE(hmac(1) == 0);
  CHECK(client.handles(0x02000000) == Handles{session});
  REQUIRE(client.code(wire::policy_command_code(session, 0x155)) == 0);
  REQUIRE(hmac(0) == 0);
  CHECK(client.handles(0x02000000).empty());
}

TEST_CASE("books: an audited answer is the TPM's own, for every client") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  (void)one.handle(wire::create_primary(kOwner, "a"));
  (void)two.handle(wire::create_primary(kOwner, "b"));
  const Bytes started = two(wire::start_session(SessionType::Hmac));
  const auto nonce_size = get_be<std::uint16_t>(started, tpm::kHeaderSize + 4);
  const BytesView nonce = BytesView(started).subspan(tpm::kHeaderSize + 6, nonce_size);
  constexpr std::uint8_t kAudit = 0x81;
  const Bytes question = wire::u32s(1U, 0x80000000U, 254U);
  const auto parameters = tpm::sha256(wire::join({wire::u32s(kGetCapability), question}));
  const Bytes proof = unkeyed_hmac(wire::join({parameters, nonce, Bytes{kAudit}}));
  const Bytes response =
      two(wire::command(kGetCapability, {}, {{wire::handle_of(started), kAudit, proof}}, question));
  REQUIRE(wire::code_of(response) == 0);
  const Bytes list = wire::join({Bytes{0}, wire::u32s(1U, 2U, 0x80000000U, 0x80000001U)});
  REQUIRE(get_be<std::uint32_t>(response, tpm::kHeaderSize) == list.size());
  CHECK(Bytes(response.begin() + tpm::kHeaderSize + 4,
              response.begin() + tpm::kHeaderSize + 4 + list.size()) == list);
}

TEST_CASE("books: a command that names more sessions than the TPM can have loaded is told so") {
  Fixture fixture;
  Client client(fixture);
  for (int i = 0; i < 4; ++i)
    (void)client.handle(kStart);
  const Bytes policy_secret =
      wire::command(0x151, {kOwner, 0x03000000}, {{0x03000001}, {0x03000002}, {0x03000003}}, Bytes(10));
  CHECK(client.code(policy_secret) == 0x903);  // SESSION_MEMORY
}

TEST_CASE("books: who makes room is another client, and of one client the object that was used longest ago") {
  Fixture fixture;
  Client one(fixture);
  const auto loads_for = [&](std::uint32_t object) {
    const std::size_t before = fixture.tpm.counts[kContextLoad];
    (void)one.public_of(object);
    return fixture.tpm.counts[kContextLoad] - before;
  };
  for (const char* name : {"a", "b"})
    (void)one.handle(wire::create_primary(kOwner, name));
  SECTION("another's goes though it is the youngest") {
    Client two(fixture);
    (void)two.handle(wire::create_primary(kOwner, "c"));
    (void)one.handle(wire::create_primary(kOwner, "d"));
    for (const std::uint32_t object : one.handles(0x80000000))
      CHECK(loads_for(object) == 0);
  }
  SECTION("alone, the oldest") {
    for (const char* name : {"c", "d"})
      (void)one.handle(wire::create_primary(kOwner, name));
    for (const std::uint32_t object : {0x80000003U, 0x80000002U, 0x80000001U})
      CHECK(loads_for(object) == 0);
    CHECK(loads_for(0x80000000) == 1);
  }
}

TEST_CASE("books: nothing of the raw space moves for its own command") {
  Fixture fixture;
  Client raw(fixture, space::Kind::Raw);
  for (const char* name : {"a", "b", "c"})
    (void)raw.handle(wire::create_primary(kOwner, name));
  CHECK(raw.code(wire::create_primary(kOwner, "d")) == 0x902);
  CHECK(fixture.manager.counters().swaps == 0);
}

TEST_CASE("books: of several old contexts each is renewed in its turn when the context gap is full") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  const std::uint32_t first = one.handle(kStart), second = one.handle(kStart);
  const Bytes first_context = save(one, first), second_context = save(one, second);
  std::vector<std::uint32_t> others;
  for (int i = 0; i < 3; ++i)
    others.push_back(two.handle(kStart));
  const std::uint32_t busy = two.handle(kStart);
  for (int i = 0; i < 0x10000 + 100; ++i)
    REQUIRE(two.handle(wire::context_load(save(two, busy))) == busy);
  for (const std::uint32_t other : others)
    CHECK(two.code(wire::policy_get_digest(other)) == 0);
  CHECK(one.handle(wire::context_load(first_context)) == first);
  CHECK(one.handle(wire::context_load(second_context)) == second);
  CHECK(fixture.manager.counters().evictions == 0);
}

TEST_CASE("books: where all sessions are active, another's is still one that is not there") {
  Fixture fixture;
  Client holder(fixture), other(fixture);
  std::uint32_t last = 0;
  for (int i = 0; i < 64; ++i)
    last = holder.handle(kStart);
  CHECK(other.code(wire::policy_get_digest(last)) == 0x910);
  CHECK(other.code(wire::flush(last)) == 0x1cb);
  CHECK(holder.code(wire::policy_get_digest(last)) == 0);
}

TEST_CASE("books: a flush that is not well formed lets nothing go, whether it is in the TPM or not") {
  Fixture fixture;
  Client client(fixture);
  for (const char* name : {"a", "b", "c", "d"})
    (void)client.handle(wire::create_primary(kOwner, name));
  for (const std::uint32_t object : client.handles(0x80000000))
    CHECK(client.code(lengthened(wire::flush(object))) == 0x95);
  CHECK(client.handles(0x80000000).size() == 4);
}

TEST_CASE("books: what another client's Clear takes, and a power cycle, is gone from the raw space at once") {
  Fixture fixture;
  Client raw(fixture, space::Kind::Raw), managed(fixture);
  (void)raw.handle(wire::create_primary(kOwner, "a"));
  if (GENERATE(true, false)) {
    REQUIRE(managed.code(wire::command(0x126, {wire::kLockout}, {{}})) == 0);
  } else {
    fixture.tpm.power_cycle();
    fixture.manager.power_cycled();
  }
  CHECK(raw.handles(0x80000000).empty());
}

TEST_CASE("books: at the limit of objects a session's context can still be loaded") {
  Fixture fixture({4, 2, 4});
  Client client(fixture);
  const std::uint32_t session = client.handle(kStart);
  const Bytes context = save(client, session);
  for (const char* name : {"a", "b"})
    (void)client.handle(wire::create_primary(kOwner, name));
  CHECK(client.code(wire::create_primary(kOwner, "c")) == 0x902);
  CHECK(client.handle(wire::context_load(context)) == session);
}

TEST_CASE("books: a client that closes while it waits for a session does not keep the next one waiting") {
  Fixture fixture;
  Client holder(fixture), first(fixture), second(fixture);
  for (int i = 0; i < 64; ++i)
    (void)holder.handle(kStart);
  CHECK(first.waits(kStart));
  first.close();
  REQUIRE(holder.code(wire::flush(0x03000005)) == 0);
  CHECK(second.handle(kStart) == 0x03000005);
}

TEST_CASE("books: a session does not become young by being saved and loaded") {
  Fixture fixture;
  Client holder(fixture), other(fixture);
  for (int i = 0; i < 64; ++i, fixture.now += 1ms)
    (void)holder.handle(kStart);
  fixture.now += 3s;
  REQUIRE(holder.handle(wire::context_load(save(holder, 0x03000000))) == 0x03000000);
  CHECK(other.handle(kStart) == 0x03000000);
}

TEST_CASE("books: sessions that were loaded before there was a resource manager make room") {
  Fixture fixture;
  for (int i = 0; i < 3; ++i)
    REQUIRE(wire::code_of(fixture.tpm.transmit(tpm::Locality::tenant(), kStart).value()) == 0);
  Client client(fixture);
  CHECK(client.code(kStart) == 0);
}
