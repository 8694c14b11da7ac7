// SPDX-License-Identifier: Apache-2.0
// TPM2_GetCapability as a space sees it, against what libtpms says of itself.
#include "tests/unit/space/fixture.h"

using namespace vtpm;
using namespace vtpm::test;
using wire::kOwner;
using wire::SessionType;

namespace {

// TPM_PT_VAR values by property.
std::map<std::uint32_t, std::uint32_t> properties(const Bytes& response) {
  std::map<std::uint32_t, std::uint32_t> found;
  for (std::size_t at = 19; at + 8 <= response.size(); at += 8)
    found[get_be<std::uint32_t>(response, at)] = get_be<std::uint32_t>(response, at + 4);
  return found;
}

}  // namespace

TEST_CASE("capability: to a client alone it is byte for byte the TPM's") {
  Fixture fixture;
  Client client(fixture);
  const int made = GENERATE(0, 1, 2);
  for (int i = 0; i < made; ++i) {
    (void)client.handle(wire::create_primary(kOwner, std::to_string(i)));
    (void)client.handle(wire::start_session(i == 0 ? SessionType::Policy : SessionType::Hmac));
  }
  if (made == 2)
    REQUIRE(client.code(wire::context_save(client.handle(wire::start_session(SessionType::Trial)))) == 0);
  for (const std::uint32_t first :
       {0x80000000U, 0x80000001U, 0x02000000U, 0x02000001U, 0x03000000U, 0x03000003U})
    for (const std::uint32_t count : {0U, 1U, 2U, 254U, 0xffffffffU}) {
      const Bytes ask = wire::get_capability(1, first, count);
      const Bytes seen = client(ask);
      const BytesView real = fixture.tpm.transmit(tpm::Locality::tenant(), ask).value();
      CHECK(seen == Bytes(real.begin(), real.end()));
    }
  for (const std::uint32_t first : {0x100U, 0x200U, 0x203U, 0x207U}) {
    const Bytes ask = wire::get_capability(6, first, 8);
    const Bytes seen = client(ask);
    const BytesView real = fixture.tpm.transmit(tpm::Locality::tenant(), ask).value();
    CHECK(seen == Bytes(real.begin(), real.end()));
  }
}

TEST_CASE("capability: a space counts its own objects and sessions only") {
  Fixture fixture({4, 6, 6});
  Client one(fixture), two(fixture);
  for (int i = 0; i < 5; ++i) {
    (void)one.handle(wire::create_primary(kOwner, std::to_string(i)));
    (void)one.handle(wire::start_session(SessionType::Policy));
  }
  auto seen = properties(two(wire::get_capability(6, 0x200, 20)));
  CHECK(seen[0x203] == 0);
  CHECK(seen[0x204] == 3);
  CHECK(seen[0x205] == 0);
  CHECK(seen[0x206] == 6);
  CHECK(seen[0x207] == 3);
  seen = properties(one(wire::get_capability(6, 0x203, 5)));
  CHECK(seen[0x203] == 5);
  CHECK(seen[0x204] == 1);  // there is always room for one more
  CHECK(seen[0x206] == 1);
  CHECK(seen[0x207] == 1);
  (void)one.handle(wire::create_primary(kOwner, "last"));
  (void)one.handle(wire::start_session(SessionType::Policy));
  seen = properties(one(wire::get_capability(6, 0x203, 5)));
  CHECK(seen[0x204] == 0);  // but for the limits
  CHECK(seen[0x206] == 0);
  CHECK(seen[0x207] == 0);
}

TEST_CASE("capability: a list longer than asked for goes on where it stopped") {
  Fixture fixture;
  Client client(fixture);
  for (int i = 0; i < 7; ++i)
    (void)client.handle(wire::hash_sequence_start());
  const Bytes page = client(wire::get_capability(1, 0x80000002, 3));
  CHECK(page[10] == 1);
  CHECK(get_be<std::uint32_t>(page, 15) == 3);
  CHECK(get_be<std::uint32_t>(page, 19) == 0x80000002);
  CHECK(client(wire::get_capability(1, 0x80000004, 3))[10] == 0);
}

TEST_CASE("capability: a malformed question gets the TPM's error") {
  Fixture fixture;
  Client client(fixture);
  Bytes ask = wire::get_capability(1, 0x80000000, 1);
  ask.pop_back();
  ask[5] = static_cast<std::uint8_t>(ask.size());
  CHECK(client.code(ask) == 0x3da);                                        // INSUFFICIENT, parameter 3
  CHECK(client.code(wire::get_capability(1, 0x90000000, 1)) == 0x2cb);     // HANDLE, parameter 2
  CHECK(client.code(wire::get_capability(0x77, 0x80000000, 1)) == 0x1c4);  // VALUE, parameter 1
}
