// SPDX-License-Identifier: Apache-2.0
// Every command that libtpms has, through the resource manager; and answers to what is no proper command.
#include "space/state.h"
#include "tests/unit/space/fixture.h"

#include <random>

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using wire::SessionType;

namespace {

// The TPMA_CC of all commands, asked for past the resource manager.
std::vector<std::uint32_t> all_commands(Fixture& fixture) {
  const BytesView response =
      fixture.tpm.transmit(tpm::Locality::tenant(), wire::get_capability(2, 0, 254)).value();
  REQUIRE(response[10] == 0);
  std::vector<std::uint32_t> found;
  for (std::size_t at = 19; at < response.size(); at += 4)
    found.push_back(get_be<std::uint32_t>(response, at));
  return found;
}

}  // namespace

TEST_CASE("commands: the attribute table is the TPM's list") {
  Fixture fixture;
  space::State state(fixture.tpm, {});
  REQUIRE(state.prepare().has_value());
  const auto commands = all_commands(fixture);
  CHECK(commands.size() > 100);
  CHECK(state.attributes.size() == commands.size());
  for (const std::uint32_t tpma_cc : commands) {
    const auto* found = state.attributes.find(tpm::CommandCode{tpma_cc & 0x2000ffff});
    REQUIRE(found != nullptr);
    CHECK(found->handles() == (tpma_cc >> 25 & 7));
    CHECK(found->makes_handle() == ((tpma_cc >> 28 & 1) != 0));
  }
  CHECK(state.attributes.find(tpm::CommandCode{0x11e}) == nullptr);
  CHECK(state.residency.capacity().objects == 3);
  CHECK(state.residency.capacity().loaded_sessions == 3);
  CHECK(state.residency.capacity().active_sessions == 64);
}

TEST_CASE("commands: each, with handles of all kinds, leaves a neighbour's objects and sessions alone") {
  Fixture fixture;
  Client neighbour(fixture), client(fixture);
  std::vector<Bytes> areas, digests;
  for (std::uint32_t i = 0; i < 4; ++i) {
    areas.push_back(
        neighbour.public_of(neighbour.handle(wire::create_primary(wire::kNull, std::to_string(i)))));
    (void)neighbour.handle(wire::start_session(SessionType::Policy));
    digests.push_back(neighbour(wire::policy_get_digest(0x03000000 + i)));
  }
  std::mt19937 generator(1);
  const auto random = [&] { return static_cast<std::uint32_t>(generator()); };
  const auto handle = [&]() -> std::uint32_t {
    switch (random() % 6) {
      case 0:
      case 1:
        return 0x80000000 + random() % 5;
      case 2:
        return 0x03000000 + random() % 8;
      case 3:
        return 0x02000000 + random() % 8;
      case 4:
        return random() % 24;
      default:
        return kOwner;
    }
  };
  for (const std::uint32_t tpma_cc : all_commands(fixture)) {
    const std::uint32_t code = tpma_cc & 0x2000ffff;
    // ChangePPS, ChangeEPS and Clear: theirs is to flush (contexts_test.cpp). PP_Commands and the like are
    // harmless.
    if (code == 0x124 || code == 0x125 || code == 0x126) continue;
    for (int round = 0; round < 12; ++round) {
      (void)client(wire::create_primary(wire::kNull, "mine"));
      const std::uint32_t count = tpma_cc >> 25 & 7;
      Bytes parameters(random() % 40);
      for (std::uint8_t& byte : parameters)
        byte = static_cast<std::uint8_t>(random() % 4);
      Bytes bytes = count == 0   ? wire::command(code, {}, {}, parameters)
                    : count == 1 ? wire::command(code, {handle()}, {{}}, parameters)
                    : count == 2 ? wire::command(code, {handle(), handle()}, {{}, {handle()}}, parameters)
                                 : wire::command(code, {handle(), handle(), handle()}, {{}, {}}, parameters);
      const auto outcome = client.execute(bytes);
      CHECK(std::holds_alternative<Bytes>(outcome));
    }
    INFO("command " << std::hex << code);
    for (std::uint32_t i = 0; i < 4; ++i) {
      REQUIRE(neighbour.public_of(0x80000000 + i) == areas[i]);
      REQUIRE(neighbour(wire::policy_get_digest(0x03000000 + i)) == digests[i]);
    }
  }
}

TEST_CASE("commands: an object that is not there is answered as libtpms does, however full the TPM is") {
  Fixture fixture;
  Client client(fixture), neighbour(fixture);
  const int neighbours = GENERATE(0, 1, 3, 5);
  for (int i = 0; i < neighbours; ++i)
    (void)neighbour.handle(wire::create_primary(kOwner, std::to_string(i)));
  CHECK(client.code(wire::read_public(0x80000000)) == 0x910);  // REFERENCE_H0
  CHECK(client.code(wire::read_public(0x80000002)) == 0x910);
  CHECK(client.code(wire::read_public(0x80000003)) == 0x184);                // VALUE, handle 1: no such slot
  CHECK(client.code(wire::flush(0x80000000)) == 0x1cb);                      // HANDLE, parameter 1
  CHECK(client.code(wire::flush(0x80000003)) == 0x1c4);                      // VALUE, parameter 1
  CHECK(client.code(wire::evict_control(0x80000001, 0x81000000)) == 0x911);  // REFERENCE_H1
  CHECK(client.code(wire::command(0x173, {}, {})) == 0x19a);                 // INSUFFICIENT, handle 1
  CHECK(client.code(wire::command(0xfff, {}, {})) == 0x143);                 // COMMAND_CODE
  for (int i = 0; i < neighbours; ++i)
    CHECK(neighbour.code(wire::read_public(0x80000000 + static_cast<std::uint32_t>(i))) == 0);
}

TEST_CASE("commands: before TPM2_Startup they get the TPM's own answer") {
  Fixture fixture;
  Client client(fixture);
  fixture.tpm.power_off();
  fixture.tpm.power_on();
  fixture.manager.power_cycled();
  CHECK(client.code(wire::get_random()) == 0x100);  // INITIALIZE
  CHECK(client.code(wire::read_public(0x80000000)) == 0x100);
  CHECK(client.code(wire::command(0x144, {}, {}, Bytes{0, 0})) == 0);
  CHECK(client.code(wire::get_random()) == 0);
  CHECK(client.code(wire::command(0x144, {}, {}, Bytes{0, 0})) == 0x100);
}
