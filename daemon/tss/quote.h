// SPDX-License-Identifier: Apache-2.0
// PCR values and quotes, SHA-256 bank.
#pragma once

#include "daemon/tss/object.h"

#include <vtpm/tpm/attest.h>

#include <set>
#include <variant>

namespace vtpm::tss {

using PcrSelection = std::set<unsigned>;  // of the SHA-256 bank, each below tpm::kPcrCount

TPML_PCR_SELECTION to_list(const PcrSelection& selection) noexcept;

struct Quoted {
  Bytes quote;          // TPMS_ATTEST
  Bytes signature;      // TPMT_SIGNATURE
  tpm::PcrValues pcrs;  // the values whose digest is quoted
};

// TPM2_PCR_Read as often as it takes (8 values a command). No SHA-256 bank: Unsupported.
Result<tpm::PcrValues> read_pcrs(Esys& esys, const PcrSelection& selection);

// TPM2_Quote with the key's own scheme and its auth as a password, and PCR values that match it. PCRs that
// never hold still (kQuoteAttempts): Busy. A refused TPM2_Quote is a value.
inline constexpr int kQuoteAttempts = 8;
Result<std::variant<Quoted, Refused>> try_quote(Esys& esys, const Object& key,
                                                const tpm::Sha256& qualifying_data,
                                                const PcrSelection& selection);

}  // namespace vtpm::tss
