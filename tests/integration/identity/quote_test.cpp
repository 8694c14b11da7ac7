// SPDX-License-Identifier: Apache-2.0
// The supervisor's quotes and statements, whatever the tenant has done to its TPM.
#include "tests/integration/identity/fixture.h"

#include <vtpm/tpm/attest.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

const tpm::Sha256 kData = tpm::sha256(as_bytes("qualifying data"));

void check_quote(const Instance& instance) {
  const auto quote = identity::quote(*instance.engine.link, instance.id.ak_name, kData);
  if (quote.has_error()) FAIL(quote.error().context);
  CHECK(tpm::verify_signature(instance.id.ak_public, quote->quote, quote->signature).has_value());
  const auto parsed = tpm::parse_quote(quote->quote);
  REQUIRE(parsed.has_value());
  CHECK(parsed->extra_data == Bytes(kData.begin(), kData.end()));
  CHECK(parsed->pcrs.size() == tpm::kPcrCount);
  CHECK(quote->pcrs.size() == tpm::kPcrCount);
  const auto digest = tpm::pcr_digest(quote->pcrs);
  CHECK(parsed->pcr_digest == Bytes(digest.begin(), digest.end()));
  CHECK(quote->pcrs.at(17) == tpm::extend(tpm::Sha256{}, tpm::sha256(as_bytes(kLaunch))));
}

tss::CreatedPrimary tenants_key(const Instance& instance, std::string_view domain) {
  const auto area = identity::attestation_key_template(tpm::sha256(as_bytes(domain)));
  return std::move(tss::create_primary(*instance.tenant, ESYS_TR_RH_ENDORSEMENT, area).value());
}

TSS2_RC clear(const Instance& instance) {
  return instance
      .run([](ESYS_CONTEXT* context) {
        return Esys_Clear(context, ESYS_TR_RH_LOCKOUT, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE);
      })
      .value();
}

}  // namespace

TEST_CASE("instance quote: it verifies, and its PCR values match") {
  const Instance instance;
  REQUIRE(extend_as_tenant(instance, 16).value() == TPM2_RC_SUCCESS);
  check_quote(instance);
  CHECK(tss::transient_objects(*instance.tenant).value().empty());
}

TEST_CASE("instance quote: after TPM2_Clear the AK is derived again, with the same Name") {
  const Instance instance;
  REQUIRE(clear(instance) == TPM2_RC_SUCCESS);
  REQUIRE(tss::handles(*instance.tenant, TPM2_PERSISTENT_FIRST, TPM2_PERSISTENT_LAST).value().empty());
  check_quote(instance);
  CHECK(tss::transient_objects(*instance.tenant).value().empty());
}

TEST_CASE("instance quote: an evicted AK, and another key in its place, change nothing") {
  const Instance instance;
  REQUIRE(tss::evict(*instance.tenant, tpm::kAkHandle).has_value());
  check_quote(instance);
  {
    const auto other = tenants_key(instance, "impostor");
    REQUIRE(tss::persist(*instance.tenant, other.object, tpm::kAkHandle).has_value());
  }
  check_quote(instance);
}

TEST_CASE("instance quote: the AK with an auth value of the tenant's in its place changes nothing") {
  const Instance instance;
  REQUIRE(tss::evict(*instance.tenant, tpm::kAkHandle).has_value());
  {
    const auto same = tss::create_primary(*instance.tenant, ESYS_TR_RH_ENDORSEMENT,
                                          identity::instance_ak_template(), as_bytes("secret"));
    REQUIRE(same.has_value());
    REQUIRE(tss::persist(*instance.tenant, same->object, tpm::kAkHandle).has_value());
  }
  check_quote(instance);
}

TEST_CASE("instance quote: a tenant that removes the AK and locks the hierarchy gets a Conflict") {
  const Instance instance;
  REQUIRE(tss::evict(*instance.tenant, tpm::kAkHandle).has_value());
  REQUIRE(set_hierarchy_auth(instance, ESYS_TR_RH_ENDORSEMENT).value() == TPM2_RC_SUCCESS);
  const auto quote = identity::quote(*instance.engine.link, instance.id.ak_name, kData);
  REQUIRE(quote.has_error());
  CHECK(quote.error().kind() == ErrorCode::Conflict);
}

TEST_CASE("instance quote: a tenant's endorsementAuth alone does not matter") {
  const Instance instance;
  REQUIRE(set_hierarchy_auth(instance, ESYS_TR_RH_ENDORSEMENT).value() == TPM2_RC_SUCCESS);
  check_quote(instance);
}

TEST_CASE("instance quote: a TPM in dictionary attack lockout still attests") {
  const Instance instance;
  // With no tries left, everything that is protected is locked out at once.
  REQUIRE(instance
              .run([](ESYS_CONTEXT* context) {
                return Esys_DictionaryAttackParameters(context, ESYS_TR_RH_LOCKOUT, ESYS_TR_PASSWORD,
                                                       ESYS_TR_NONE, ESYS_TR_NONE, 0, 1000, 1000);
              })
              .value() == TPM2_RC_SUCCESS);
  check_quote(instance);
}

TEST_CASE("instance quote: slots that the tenant has filled do not matter, and its objects stay") {
  const Instance instance;
  const bool derived = GENERATE(false, true);
  if (derived) REQUIRE(tss::evict(*instance.tenant, tpm::kAkHandle).has_value());
  std::vector<tss::CreatedPrimary> own;
  for (const char* domain : {"one", "two", "three"})
    own.push_back(tenants_key(instance, domain));
  const auto before = tss::transient_objects(*instance.tenant).value();
  REQUIRE(before.size() == 3);
  check_quote(instance);
  CHECK(tss::transient_objects(*instance.tenant).value() == before);
  for (const auto& key : own)
    CHECK(tss::read_public(*instance.tenant, key.object).value() == key.public_area);
}

TEST_CASE("instance statement: the supervisor extends PCR 18, its tenant can extend neither 17 nor 18") {
  const Instance instance;
  REQUIRE(identity::extend(*instance.engine.link, tpm::kOperatorPcr, kData).has_value());
  CHECK(tss::plain_code(extend_as_tenant(instance, 17).value()) == TPM2_RC_LOCALITY);
  CHECK(tss::plain_code(extend_as_tenant(instance, 18).value()) == TPM2_RC_LOCALITY);
  const auto pcrs = tss::read_pcrs(*instance.tenant, {17, 18}).value();
  CHECK(pcrs.at(17) == tpm::extend(tpm::Sha256{}, tpm::sha256(as_bytes(kLaunch))));
  CHECK(pcrs.at(18) == tpm::extend(tpm::Sha256{}, kData));
  CHECK(identity::extend(*instance.engine.link, 24, kData).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("instance quote: a TPM that is powered off is an error") {
  Instance instance;
  REQUIRE(instance.engine.link->shutdown().has_value());
  CHECK(identity::quote(*instance.engine.link, instance.id.ak_name, kData).has_error());
}
