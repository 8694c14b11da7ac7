// SPDX-License-Identifier: Apache-2.0
#include "daemon/identity/provision.h"

#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"
#include "daemon/tss/provision_key.h"

#include <vtpm/os/secret.h>

#include <openssl/crypto.h>
#include <tss2/tss2_rc.h>

#include <algorithm>

namespace vtpm::identity {
namespace {

constexpr std::size_t kPlatformAuthSize = 32;

bool is_allocated(const TPMS_PCR_SELECTION& bank) noexcept {
  const std::span select(bank.pcrSelect, std::min<std::size_t>(bank.sizeofSelect, TPM2_PCR_SELECT_MAX));
  return std::ranges::any_of(select, [](BYTE pcrs) { return pcrs != 0; });
}

using Outcome = std::variant<tss::Quoted, tss::Refused>;

tss::PcrSelection all_pcrs() {
  tss::PcrSelection all;
  for (unsigned pcr = 0; pcr < tpm::kPcrCount; ++pcr)
    all.insert(pcr);
  return all;
}

// By the key at kAkHandle. Another key there, or one with another auth value, is a refusal.
Result<Outcome> quote_by_persistent(tss::Esys& esys, const Bytes& ak_name, const tpm::Sha256& data) {
  VTPM_TRY(const auto key, tss::find(esys, tpm::kAkHandle));
  if (!key) return Outcome(tss::Refused{TPM2_RC_HANDLE});
  VTPM_TRY(const Bytes name, tss::name_of(esys, *key));
  if (name != ak_name) return Outcome(tss::Refused{TPM2_RC_HANDLE});
  return tss::try_quote(esys, *key, data, all_pcrs());
}

Error derivation_refused(TSS2_RC code) {
  const std::string reason = Tss2_RC_Decode(code);
  return Error(ErrorCode::Conflict,
               "the tenant removed the AK of its TPM, and it cannot be derived again: " + reason +
                   " (is endorsementAuth set, or the endorsement hierarchy disabled?)");
}

Result<Outcome> quote_by_derived(tss::Esys& esys, const Bytes& ak_name, const tpm::Sha256& data) {
  VTPM_TRY(auto made, tss::try_create_primary(esys, ESYS_TR_RH_ENDORSEMENT, instance_ak_template()));
  if (const auto* refused = std::get_if<tss::Refused>(&made)) return derivation_refused(refused->code);
  const auto& key = std::get<tss::CreatedPrimary>(made);
  VTPM_TRY(const Bytes name, tss::name_of(esys, key.object));
  if (name != ak_name)
    return Error(ErrorCode::Conflict, "the AK that was derived again is another one: not the TPM it was");
  return tss::try_quote(esys, key.object, data, all_pcrs());
}

// By handle, or derived. A tenant that prevents both: nothing to compare.
Result<> check_key(tss::Esys& esys, std::string_view what, TPM2_HANDLE handle, const TPMT_PUBLIC& area,
                   const Bytes& known) {
  VTPM_TRY(const auto persistent, tss::find(esys, handle));
  if (persistent) {
    VTPM_TRY(const Bytes name, tss::name_of(esys, *persistent));
    if (name == known) return {};
  }
  VTPM_TRY(auto made, tss::try_create_primary(esys, ESYS_TR_RH_ENDORSEMENT, area));
  const auto* derived = std::get_if<tss::CreatedPrimary>(&made);
  if (derived == nullptr) return {};
  VTPM_TRY(const Bytes name, tss::name_of(esys, derived->object));
  if (name == known) return {};
  return Error(ErrorCode::Corrupt, "the " + std::string(what) + " is another one: not the TPM that it was");
}

}  // namespace

Result<> set_lockout_parameters(tss::Esys& esys) {
  return esys.call("TPM2_DictionaryAttackParameters", [](ESYS_CONTEXT* context) {
    return Esys_DictionaryAttackParameters(context, ESYS_TR_RH_LOCKOUT, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                                           ESYS_TR_NONE, kMaxTries, kRecoveryTime, kLockoutRecovery);
  });
}

Result<> check_identity(tss::Esys& esys, const Identity& known) {
  VTPM_TRY_VOID(check_key(esys, "EK", tpm::kEkHandle, ek_template(), known.ek_name));
  return check_key(esys, "AK", tpm::kAkHandle, instance_ak_template(), known.ak_name);
}

Result<bool> keep_sha256_bank(tss::Esys& esys) {
  VTPM_TRY(TPML_PCR_SELECTION banks, tss::pcr_banks(esys));
  bool change = false;
  for (auto& bank : std::span(banks.pcrSelections, std::min<std::size_t>(banks.count, TPM2_NUM_PCR_BANKS))) {
    const bool wanted = bank.hash == TPM2_ALG_SHA256;
    change = change || is_allocated(bank) != wanted;
    bank.sizeofSelect = tpm::kPcrCount / 8;
    std::ranges::fill(bank.pcrSelect, static_cast<BYTE>(wanted ? 0xff : 0));
  }
  if (!change) return false;
  TPMI_YES_NO success = TPM2_NO;
  std::uint32_t max = 0;
  std::uint32_t needed = 0;
  std::uint32_t available = 0;
  VTPM_TRY_VOID(esys.call("TPM2_PCR_Allocate", [&](ESYS_CONTEXT* context) {
    return Esys_PCR_Allocate(context, ESYS_TR_RH_PLATFORM, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                             &banks, &success, &max, &needed, &available);
  }));
  if (success != TPM2_YES)
    return Error(ErrorCode::TpmFailure, "TPM2_PCR_Allocate: no room for the SHA-256 bank");
  return true;
}

Result<Identity> create_identity(tss::Esys& esys) {
  VTPM_TRY(auto ek, tss::make_persistent_key(esys, TPM2_RH_ENDORSEMENT, ek_template(), tpm::kEkHandle));
  VTPM_TRY(auto srk, tss::make_persistent_key(esys, TPM2_RH_OWNER, srk_template(), tpm::kSrkHandle));
  VTPM_TRY(auto ak,
           tss::make_persistent_key(esys, TPM2_RH_ENDORSEMENT, instance_ak_template(), tpm::kAkHandle));
  return Identity{std::move(ek.public_area), std::move(ek.name), std::move(srk.name),
                  std::move(ak.public_area), std::move(ak.name)};
}

Result<> close_platform(tss::Esys& esys) {
  VTPM_TRY(const Secret random, Secret::random(kPlatformAuthSize));
  TPM2B_AUTH auth{};
  auth.size = kPlatformAuthSize;
  std::ranges::copy(random.view(), auth.buffer);
  auto closed = esys.call("TPM2_HierarchyChangeAuth(platform)", [&](ESYS_CONTEXT* context) {
    return Esys_HierarchyChangeAuth(context, ESYS_TR_RH_PLATFORM, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                                    ESYS_TR_NONE, &auth);
  });
  OPENSSL_cleanse(&auth, sizeof auth);
  return closed;
}

Result<InstanceQuote> quote_by_ak(tss::Esys& esys, const Bytes& ak_name, const tpm::Sha256& qualifying_data) {
  VTPM_TRY(Outcome outcome, quote_by_persistent(esys, ak_name, qualifying_data));
  if (std::holds_alternative<tss::Refused>(outcome)) {
    VTPM_TRY(outcome, quote_by_derived(esys, ak_name, qualifying_data));
  }
  if (const auto* refused = std::get_if<tss::Refused>(&outcome))
    return tss::to_error("TPM2_Quote", refused->code);
  auto& quoted = std::get<tss::Quoted>(outcome);
  return InstanceQuote{std::move(quoted.quote), std::move(quoted.signature), std::move(quoted.pcrs)};
}

}  // namespace vtpm::identity
