// SPDX-License-Identifier: Apache-2.0
// Transient objects of many clients on the three slots of a real libtpms.
#include "tests/unit/space/fixture.h"

#include <deque>

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using Handles = std::vector<std::uint32_t>;

TEST_CASE("objects: a client alone gets the TPM's handles, and costs no command but its own") {
  Fixture fixture;
  Client client(fixture);
  (void)client(wire::get_random());  // the first command reads the TPM's attributes
  fixture.tpm.counts.clear();
  CHECK(client.handle(wire::create_primary(kOwner, "a")) == 0x80000000);
  CHECK(client.handle(wire::create_primary(kOwner, "b")) == 0x80000001);
  CHECK(client.handle(wire::hash_sequence_start()) == 0x80000002);
  CHECK(client.code(wire::flush(0x80000001)) == 0);
  CHECK(client.handle(wire::create_primary(kOwner, "c")) == 0x80000001);
  CHECK(client.handles(0x80000000) == Handles{0x80000000, 0x80000001, 0x80000002});
  CHECK(fixture.tpm.commands() == 6);
  CHECK(fixture.manager.counters().swaps == 0);
}

TEST_CASE("objects: more than the TPM has room for, each stays what it was") {
  Fixture fixture;
  Client client(fixture);
  std::vector<Bytes> publics;
  for (std::uint32_t i = 0; i < 8; ++i) {
    REQUIRE(client.handle(wire::create_primary(kOwner, std::to_string(i))) == 0x80000000 + i);
    publics.push_back(client.public_of(0x80000000 + i));
  }
  for (const std::uint32_t i : {0U, 7U, 3U, 1U, 5U, 2U, 6U, 4U, 0U})
    CHECK(client.public_of(0x80000000 + i) == publics[i]);
  CHECK(fixture.manager.counters().swaps > 0);
}

TEST_CASE("objects: two clients use the same handles and never meet") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  std::vector<Bytes> ones, twos;
  for (std::uint32_t i = 0; i < 3; ++i) {
    CHECK(one.handle(wire::create_primary(kOwner, "one" + std::to_string(i))) == 0x80000000 + i);
    CHECK(two.handle(wire::create_primary(kOwner, "two" + std::to_string(i))) == 0x80000000 + i);
    ones.push_back(one.public_of(0x80000000 + i));
    twos.push_back(two.public_of(0x80000000 + i));
  }
  for (int round = 0; round < 3; ++round)
    for (std::uint32_t i = 0; i < 3; ++i) {
      CHECK(one.public_of(0x80000000 + i) == ones[i]);
      CHECK(two.public_of(0x80000000 + i) == twos[i]);
    }
  CHECK(ones != twos);
}

TEST_CASE("objects: one that comes and goes is saved once") {
  Fixture fixture;
  Client one(fixture), two(fixture);
  std::vector<Bytes> publics;
  for (Client* client : {&one, &two})
    for (std::uint32_t i = 0; i < 3; ++i) {
      (void)client->handle(wire::create_primary(kOwner, std::to_string(publics.size())));
      publics.push_back(client->public_of(0x80000000 + i));
    }
  fixture.tpm.counts.clear();
  for (int round = 0; round < 5; ++round)
    for (std::uint32_t i = 0; i < 6; ++i)
      CHECK((i < 3 ? one : two).public_of(0x80000000 + i % 3) == publics[i]);
  CHECK(fixture.tpm.counts[0x161] == 30);
  CHECK(fixture.tpm.counts[0x162] == 3);  // the others were out already
}

TEST_CASE("objects: closing flushes them") {
  Fixture fixture;
  {
    Client client(fixture);
    for (int i = 0; i < 5; ++i)
      (void)client.handle(wire::create_primary(kOwner, std::to_string(i)));
  }
  CHECK(fixture.tpm.handles(0x80000000).empty());
}

TEST_CASE("objects: hash sequences are swapped and go on") {
  Fixture fixture;
  std::deque<Client> clients;
  std::vector<std::uint32_t> sequences;
  for (int i = 0; i < 6; ++i)
    sequences.push_back(clients.emplace_back(fixture).handle(wire::hash_sequence_start()));
  for (const std::string_view part : {"one ", "two ", "three "})
    for (std::size_t i = 0; i < clients.size(); ++i)
      REQUIRE(clients[i].code(wire::sequence_update(sequences[i], part)) == 0);
  const auto expected = tpm::sha256(as_bytes("one two three four"));
  for (std::size_t i = 0; i < clients.size(); ++i) {
    const Bytes response = clients[i](wire::sequence_complete(sequences[i], "four"));
    REQUIRE(wire::code_of(response) == 0);
    CHECK(Bytes(response.begin() + 16, response.begin() + 48) == Bytes(expected.begin(), expected.end()));
    CHECK(clients[i].handles(0x80000000).empty());  // the command flushed the sequence
    CHECK(clients[i].code(wire::sequence_update(sequences[i], "more")) != 0);
  }
}

TEST_CASE("objects: an event sequence that completes into a PCR is flushed too") {
  Fixture fixture;
  Client client(fixture), other(fixture);
  const std::uint32_t sequence = client.handle(wire::command(0x186, {}, {}, Bytes{0, 0, 0x00, 0x10}));
  for (int i = 0; i < 3; ++i)
    (void)other.handle(wire::hash_sequence_start());
  REQUIRE(client.code(wire::sequence_update(sequence, "event")) == 0);
  REQUIRE(client.code(wire::command(0x185, {16, sequence}, {{}, {}}, Bytes{0, 0})) == 0);
  CHECK(client.handles(0x80000000).empty());
  CHECK(other.handles(0x80000000).size() == 3);
}
