// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/identity/fixture.h"

#include <vtpm/log/event_log.h>

#include <tss2/tss2_mu.h>

#include <algorithm>
#include <set>

using namespace vtpm;
using namespace vtpm::test;

namespace {

TPMT_PUBLIC parse_public(const Bytes& bytes) {
  TPMT_PUBLIC area{};
  std::size_t offset = 0;
  REQUIRE(Tss2_MU_TPMT_PUBLIC_Unmarshal(bytes.data(), bytes.size(), &offset, &area) == TSS2_RC_SUCCESS);
  REQUIRE(offset == bytes.size());
  return area;
}

Bytes name_at(const Instance& instance, TPM2_HANDLE handle) {
  const auto object = tss::find(*instance.tenant, handle);
  REQUIRE(object.has_value());
  REQUIRE(object->has_value());
  return tss::name_of(*instance.tenant, **object).value();
}

}  // namespace

TEST_CASE("provisioned TPM: EK, SRK and AK are at their handles, and nothing else is anywhere") {
  const Instance instance;
  CHECK(tss::handles(*instance.tenant, TPM2_PERSISTENT_FIRST, TPM2_PERSISTENT_LAST).value() ==
        std::vector<TPM2_HANDLE>{tpm::kSrkHandle, tpm::kEkHandle, tpm::kAkHandle});
  CHECK(tss::transient_objects(*instance.tenant).value().empty());
  CHECK(name_at(instance, tpm::kEkHandle) == instance.id.ek_name);
  CHECK(name_at(instance, tpm::kSrkHandle) == instance.id.srk_name);
  CHECK(name_at(instance, tpm::kAkHandle) == instance.id.ak_name);
  CHECK(tpm::name_of_public(instance.id.ek_public).value() == instance.id.ek_name);
  CHECK(tpm::name_of_public(instance.id.ak_public).value() == instance.id.ak_name);
}

TEST_CASE("provisioned TPM: the EK is of the TCG's template L-2, the AK a restricted signing key") {
  const Instance instance;
  const TPMT_PUBLIC ek = parse_public(instance.id.ek_public);
  CHECK(ek.objectAttributes == 0x000300b2);
  CHECK(ek.parameters.eccDetail.curveID == TPM2_ECC_NIST_P256);
  CHECK(ek.parameters.eccDetail.symmetric.keyBits.aes == 128);
  CHECK(ek.authPolicy.size == 32);
  CHECK(ek.authPolicy.buffer[0] == 0x83);
  CHECK(ek.authPolicy.buffer[31] == 0xaa);
  CHECK(tpm::check_attestation_key(instance.id.ak_public).has_value());
  CHECK(tpm::check_attestation_key(instance.id.ek_public).has_error());
}

TEST_CASE("provisioned TPM: a tool that makes the EK by the TCG's template gets the same key") {
  const Instance instance;
  const auto ek = tss::create_primary(*instance.tenant, ESYS_TR_RH_ENDORSEMENT, identity::ek_template());
  REQUIRE(ek.has_value());
  CHECK(ek->public_area == instance.id.ek_public);
}

TEST_CASE("provisioned TPM: SHA-256 is the only PCR bank, with all PCRs") {
  const Instance instance;
  const auto banks = tss::pcr_banks(*instance.tenant);
  REQUIRE(banks.has_value());
  for (const auto& bank : std::span(banks->pcrSelections, banks->count)) {
    const BYTE expected = bank.hash == TPM2_ALG_SHA256 ? 0xff : 0;
    CHECK(std::ranges::all_of(std::span(bank.pcrSelect, bank.sizeofSelect),
                              [expected](BYTE pcrs) { return pcrs == expected; }));
  }
  CHECK(tss::read_pcrs(*instance.tenant, {0, 23}).value().size() == 2);
}

TEST_CASE("provisioned TPM: the launch document is in PCR 17, as the event log replays it") {
  const Instance instance;
  log::EventLog events;
  events.append(tpm::kLaunchPcr, tpm::sha256(as_bytes(kLaunch)), log::kLaunchContent, std::string(kLaunch));
  const auto pcrs = tss::read_pcrs(*instance.tenant, {17, 18}).value();
  CHECK(pcrs.at(17) == events.replay().at(17));
  CHECK(pcrs.at(18) == tpm::Sha256{});
}

TEST_CASE("provisioned TPM: the tenant has the owner and endorsement hierarchies, not the platform") {
  const Instance instance;
  const TSS2_RC platform = set_hierarchy_auth(instance, ESYS_TR_RH_PLATFORM).value();
  CHECK((tss::plain_code(platform) == TPM2_RC_BAD_AUTH || tss::plain_code(platform) == TPM2_RC_AUTH_FAIL));
  CHECK(set_hierarchy_auth(instance, ESYS_TR_RH_OWNER).value() == TPM2_RC_SUCCESS);
  CHECK(set_hierarchy_auth(instance, ESYS_TR_RH_ENDORSEMENT).value() == TPM2_RC_SUCCESS);
  CHECK(set_hierarchy_auth(instance, ESYS_TR_RH_LOCKOUT).value() == TPM2_RC_SUCCESS);
}

TEST_CASE("provisioned TPMs: each has keys of its own") {
  constexpr std::size_t kCount = 8;
  std::set<Bytes> names;
  for (std::size_t i = 0; i < kCount; ++i) {
    const Instance instance;
    names.insert({instance.id.ek_name, instance.id.srk_name, instance.id.ak_name});
  }
  CHECK(names.size() == 3 * kCount);
}
