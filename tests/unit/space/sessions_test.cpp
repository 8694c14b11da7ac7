// SPDX-License-Identifier: Apache-2.0
// Sessions of many clients on the three loaded and 64 active ones of a real libtpms.
#include "tests/unit/space/fixture.h"

#include <deque>

using namespace vtpm;
using namespace vtpm::test;
using wire::SessionType;
using Handles = std::vector<std::uint32_t>;

namespace {

constexpr std::uint32_t kGetRandom = 0x17b;
constexpr std::uint32_t kCodes[] = {0x120, 0x121, 0x12a, 0x131, 0x153, 0x157, 0x15d, 0x162, 0x173, 0x17b};

Bytes digest_of(Client& client, std::uint32_t session) {
  const Bytes response = client(wire::policy_get_digest(session));
  REQUIRE(wire::code_of(response) == 0);
  return wire::body_of(response);
}

}  // namespace

TEST_CASE("sessions: a client alone gets the TPM's handles, and costs no command but its own") {
  Fixture fixture;
  Client client(fixture);
  (void)client(wire::get_random());
  fixture.tpm.counts.clear();
  CHECK(client.handle(wire::start_session(SessionType::Hmac)) == 0x02000000);
  CHECK(client.handle(wire::start_session(SessionType::Policy)) == 0x03000001);
  CHECK(client.handle(wire::start_session(SessionType::Trial)) == 0x03000002);
  CHECK(client.handles(0x02000000) == Handles{0x02000000, 0x03000001, 0x03000002});
  CHECK(client.handles(0x03000000).empty());
  CHECK(fixture.tpm.commands() == 5);
}

TEST_CASE("sessions: ten policy sessions of five clients are swapped and each goes on") {
  Fixture fixture;
  std::deque<Client> clients;
  std::vector<std::uint32_t> sessions;
  for (int i = 0; i < 10; ++i) {
    if (i < 5) clients.emplace_back(fixture);
    sessions.push_back(clients[i % 5].handle(wire::start_session(SessionType::Policy)));
  }
  std::vector<Bytes> digests;
  for (std::uint32_t i = 0; i < 10; ++i) {
    REQUIRE(clients[i % 5].code(wire::policy_command_code(sessions[i], kCodes[i])) == 0);
    digests.push_back(digest_of(clients[i % 5], sessions[i]));
  }
  for (std::uint32_t i = 0; i < 10; ++i)
    CHECK(digest_of(clients[i % 5], sessions[i]) == digests[i]);
  CHECK(clients[0].handles(0x02000000) == Handles{sessions[0], sessions[5]});
}

TEST_CASE("sessions: another space's session answers as one that is not there") {
  Fixture fixture;
  Client owner(fixture), other(fixture);
  const std::uint32_t policy = owner.handle(wire::start_session(SessionType::Policy));
  const std::uint32_t hmac = owner.handle(wire::start_session(SessionType::Hmac));
  const bool swapped = GENERATE(false, true);
  if (swapped)
    for (int i = 0; i < 3; ++i)
      (void)other.handle(wire::start_session(SessionType::Policy));
  CHECK(other.code(wire::policy_get_digest(policy)) == 0x910);                             // REFERENCE_H0
  CHECK(other.code(wire::command(kGetRandom, {}, {{hmac, 0x41}}, Bytes{0, 8})) == 0x918);  // REFERENCE_S0
  CHECK(other.code(wire::flush(policy)) == 0x1cb);  // HANDLE, parameter 1
  CHECK(other.code(wire::context_save(hmac)) == 0x910);
  CHECK(other.code(wire::policy_get_digest(0x03000040)) == 0x184);  // VALUE, handle 1: not a slot at all
  (void)digest_of(owner, policy);
}

TEST_CASE("sessions: closing flushes them") {
  Fixture fixture;
  {
    Client client(fixture);
    for (int i = 0; i < 7; ++i)
      (void)client.handle(wire::start_session(SessionType::Hmac));
  }
  CHECK(fixture.tpm.handles(0x02000000).empty());
  CHECK(fixture.tpm.handles(0x03000000).empty());
}

TEST_CASE("sessions: one that its client saved outlives the client, and whoever has the context loads it") {
  Fixture fixture;
  Client first(fixture), third(fixture);
  Bytes context, digest;
  std::uint32_t session = 0;
  {
    Client second(fixture);
    session = second.handle(wire::start_session(SessionType::Policy));
    REQUIRE(second.code(wire::policy_command_code(session, kGetRandom)) == 0);
    digest = digest_of(second, session);
    const Bytes response = second(wire::context_save(session));
    REQUIRE(wire::code_of(response) == 0);
    context = wire::body_of(response);
    CHECK(second.handles(0x02000000).empty());
    CHECK(second.handles(0x03000000) == Handles{0x02000000});
    CHECK(first.handles(0x03000000).empty());
    CHECK(second.code(wire::policy_get_digest(session)) == 0x910);
  }
  CHECK(third.handles(0x03000000) == Handles{0x02000000});
  CHECK(third.handle(wire::context_load(context)) == session);
  CHECK(digest_of(third, session) == digest);
  CHECK(third.code(wire::context_load(context)) == 0x1cb);  // it can be loaded once
  CHECK(first.code(wire::policy_get_digest(session)) == 0x910);
}

TEST_CASE("sessions: an orphan may be flushed by anybody") {
  Fixture fixture;
  Client first(fixture);
  {
    Client second(fixture);
    REQUIRE(second.code(wire::context_save(second.handle(wire::start_session(SessionType::Policy)))) == 0);
  }
  CHECK(first.code(wire::flush(0x02000000)) == 0);
  CHECK(fixture.tpm.handles(0x03000000).empty());
}
