// SPDX-License-Identifier: Apache-2.0
// The parts of provisioning and quoting that are TPM commands alone: they work on any TPM.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/tss/quote.h"

namespace vtpm::identity {

// TPM2_PCR_Allocate of the SHA-256 bank alone (platformAuth empty). True: the TPM needs a power cycle for it.
Result<bool> keep_sha256_bank(tss::Esys& esys);

// Makes EK, SRK and AK and persists them at their handles.
Result<Identity> create_identity(tss::Esys& esys);

// TPM2_HierarchyChangeAuth of the platform to 32 random bytes that nobody keeps. platformAuth is empty again
// after the next Startup(CLEAR): whoever sends one closes the platform again.
Result<> close_platform(tss::Esys& esys);

// Quotes all PCRs by the AK at kAkHandle or, if it is not there as provisioned, by the AK derived again.
// Errors as identity::quote; Busy when there is no room for an object.
Result<InstanceQuote> quote_by_ak(tss::Esys& esys, const Bytes& ak_name, const tpm::Sha256& qualifying_data);

}  // namespace vtpm::identity
