// SPDX-License-Identifier: Apache-2.0
// The parts of provisioning and quoting that are TPM commands alone: they work on any TPM.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/tss/quote.h"

namespace vtpm::identity {

// TPM2_PCR_Allocate of the SHA-256 bank alone (platformAuth empty). True: the TPM needs a power cycle for it.
Result<bool> keep_sha256_bank(tss::Esys& esys);

// Dictionary-attack parameters of a new TPM, instead of libtpms' 3 tries and 1000 s, which one mistyped
// script uses up. TPM2_Clear brings libtpms' own back.
inline constexpr std::uint32_t kMaxTries = 32;
inline constexpr std::uint32_t kRecoveryTime = 600;      // seconds until one failed try is forgotten
inline constexpr std::uint32_t kLockoutRecovery = 1000;  // seconds after a wrong lockoutAuth
// TPM2_DictionaryAttackParameters (lockoutAuth empty).
Result<> set_lockout_parameters(tss::Esys& esys);

// Whether EK and AK, where the tenant lets them be seen, are the known ones: else Corrupt.
Result<> check_identity(tss::Esys& esys, const Identity& known);

// Makes EK, SRK and AK and persists them at their handles.
Result<Identity> create_identity(tss::Esys& esys);

// TPM2_HierarchyChangeAuth of the platform to 32 random bytes that nobody keeps. platformAuth is empty again
// after the next Startup(CLEAR): whoever sends one closes the platform again.
Result<> close_platform(tss::Esys& esys);

// Quotes all PCRs by the AK at kAkHandle or, if it is not there as provisioned, by the AK derived again.
// Errors as identity::quote; Busy when there is no room for an object.
Result<InstanceQuote> quote_by_ak(tss::Esys& esys, const Bytes& ak_name, const tpm::Sha256& qualifying_data);

}  // namespace vtpm::identity
