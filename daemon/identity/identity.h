// SPDX-License-Identifier: Apache-2.0
// The identity of an instance: what is provisioned in a new TPM before a tenant sees it, and the quotes that
// the supervisor makes with it. Blocking (milliseconds).
#pragma once

#include "daemon/ipc/engine_link.h"

#include <vtpm/log/event_log.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/attest.h>

#include <set>

namespace vtpm::identity {

struct Identity {
  Bytes ek_public;  // TPMT_PUBLIC, TCG template L-2 (ECC P-256)
  Bytes ek_name;
  Bytes srk_name;
  Bytes ak_public;  // TPMT_PUBLIC, restricted signing ECDSA P-256 SHA-256
  Bytes ak_name;
};

// In a TPM that was just powered on for the first time: leaves SHA-256 as the only PCR bank, Startup(CLEAR),
// dictionary-attack parameters (provision.h), EK, SRK and AK made and persisted at their handles
// (tpm/constants.h), the launch document measured into PCR 17 by the DRTM sequence, platform hierarchy closed
// with a random platformAuth that nobody keeps. Nothing stays in transient slots.
Result<Identity> provision(ipc::EngineLink& engine, std::string_view launch_document);

// In a durable TPM that was just powered on from its slots: Startup(CLEAR), the launch document measured into
// PCR 17 by the DRTM sequence, platform hierarchy closed again with a random platformAuth that nobody keeps
// (Startup emptied it). EK and AK must have the known Names, at their handles or, where the tenant cleared
// its TPM or put others there, derived again: else Corrupt, this is not the TPM that it was. A tenant may
// keep them from being derived (endorsementAuth set, hierarchy disabled): that is its right, and quote() says
// so. Nothing stays in transient slots.
Result<> resume(ipc::EngineLink& engine, const Identity& known, std::string_view launch_document);

struct InstanceQuote {
  Bytes quote;          // TPMS_ATTEST
  Bytes signature;      // TPMT_SIGNATURE
  tpm::PcrValues pcrs;  // all 24
};

// Quotes all PCRs with the instance's AK. If the tenant cleared its TPM or evicted the AK, it is derived
// again from its template (same Name); if the tenant has set endorsementAuth and removed the AK, Conflict
// says so. Slots that the tenant has filled do not matter.
Result<InstanceQuote> quote(ipc::EngineLink& engine, const Bytes& ak_name,
                            const tpm::Sha256& qualifying_data);

// Values of the SHA-256 bank.
Result<tpm::PcrValues> read_pcrs(ipc::EngineLink& engine, const std::set<unsigned>& pcrs);

// TPM2_PCR_Extend of the SHA-256 bank at locality 3 (supervisor). PCR 18.
Result<> extend(ipc::EngineLink& engine, unsigned pcr, const tpm::Sha256& digest);

}  // namespace vtpm::identity
