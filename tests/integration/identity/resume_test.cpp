// SPDX-License-Identifier: Apache-2.0
// A durable TPM after its engine died: the same TPM for its tenant and its verifiers, started anew.
#include "daemon/identity/provision.h"
#include "tests/integration/identity/fixture.h"
#include "tests/support/durable.h"

using namespace vtpm;
using namespace vtpm::test;

namespace {

const tpm::Sha256 kData = tpm::sha256(as_bytes("qualifying data"));
constexpr std::string_view kSecondLaunch = R"({"instance":"test","launch":2})";
constexpr u32 kAkHandle = tpm::kAkHandle;

struct Durable {
  DurableTpm tpm{zygote()};
  identity::Identity id = made();

  // Killed, and powered on from its slots.
  Result<> die_and_resume(const identity::Identity& known) {
    tpm.kill();
    VTPM_TRY_VOID(tpm.power_on());
    return identity::resume(tpm.link(), known, kSecondLaunch);
  }
  void die_and_resume() {
    const auto resumed = die_and_resume(id);
    if (resumed.has_error()) FAIL(resumed.error().context);
  }
  Result<identity::InstanceQuote> quote() { return identity::quote(tpm.link(), id.ak_name, kData); }

 private:
  identity::Identity made() {
    if (const auto powered = tpm.power_on(); !powered) throw_exception_from_error(powered.error(), {});
    return identity::provision(tpm.link(), kLaunch).value();
  }
};

// TPM2_HierarchyChangeAuth from an empty auth value to "x".
Bytes change_auth(u32 hierarchy) {
  return authorized(0x129, hierarchy, Writer().add(u16{1}).add(Bytes{'x'}));
}

}  // namespace

TEST_CASE("resumed TPM: same keys, one reset more, its launch in PCR 17, the platform closed") {
  Durable durable;
  const auto before = tpm::parse_quote(durable.quote()->quote).value();
  durable.die_and_resume();
  const auto quote = durable.quote();
  REQUIRE(quote.has_value());
  CHECK(tpm::verify_signature(durable.id.ak_public, quote->quote, quote->signature).has_value());
  CHECK(tpm::parse_quote(quote->quote)->reset_count == before.reset_count + 1);
  CHECK(quote->pcrs.at(17) == tpm::extend(tpm::Sha256{}, tpm::sha256(as_bytes(kSecondLaunch))));
  CHECK(quote->pcrs.at(18) == tpm::Sha256{});
  const u32 platform = code_of(durable.tpm.command(change_auth(0x4000000c)));
  CHECK((platform == 0x9a2 || platform == 0x98e));  // TPM_RC_BAD_AUTH, TPM_RC_AUTH_FAIL
  CHECK(code_of(durable.tpm.command(change_auth(kOwner))) == 0);
  CHECK(tpm_property(durable.tpm.link(), 0x207) == 3);  // TPM_PT_HR_TRANSIENT_AVAIL
}

TEST_CASE("resumed TPM: whatever the tenant did to its keys, it comes back") {
  Durable durable;
  SECTION("TPM2_Clear") {
    REQUIRE(code_of(durable.tpm.command(clear())) == 0);
    durable.die_and_resume();
    CHECK(durable.quote().has_value());
  }
  SECTION("a key of its own in the AK's place") {
    REQUIRE(code_of(durable.tpm.command(evict_control(kAkHandle, kAkHandle))) == 0);
    const Bytes key = durable.tpm.command(create_primary(kOwner));
    REQUIRE(code_of(durable.tpm.command(evict_control(handle_in(key), kAkHandle))) == 0);
    durable.die_and_resume();
    CHECK(durable.quote().has_value());
  }
  SECTION("keys that cannot be derived again") {
    REQUIRE(code_of(durable.tpm.command(clear())) == 0);
    REQUIRE(code_of(durable.tpm.command(change_auth(kEndorsement))) == 0);
    durable.die_and_resume();
    CHECK(durable.quote().error().kind() == ErrorCode::Conflict);
  }
}

TEST_CASE("resumed TPM: another TPM than the known one is Corrupt") {
  Durable durable;
  auto known = durable.id;
  (GENERATE(true, false) ? known.ek_name : known.ak_name)[10] ^= 1;
  CHECK(durable.die_and_resume(known).error().kind() == ErrorCode::Corrupt);
}

TEST_CASE("new TPM: its dictionary-attack parameters are the project's") {
  Durable durable;
  CHECK(tpm_property(durable.tpm.link(), 0x20f) == identity::kMaxTries);
  CHECK(tpm_property(durable.tpm.link(), 0x210) == identity::kRecoveryTime);
  CHECK(tpm_property(durable.tpm.link(), 0x211) == identity::kLockoutRecovery);
  CHECK(tpm_property(durable.tpm.link(), kLockoutCounter) == 0);
}
