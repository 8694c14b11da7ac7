// SPDX-License-Identifier: Apache-2.0
// The EK certificate that the TPM's manufacturer left in NV (TCG EK Credential Profile, 2.2.1.4).
#pragma once

#include "daemon/tss/esys.h"

#include <optional>

namespace vtpm::anchor {

// NV indices by the template of the EK (2.2.1.4, table 2; of P-384 the high range's).
inline constexpr TPM2_HANDLE kRsa2048Index = 0x01c00002;
inline constexpr TPM2_HANDLE kEccP256Index = 0x01c0000a;
inline constexpr TPM2_HANDLE kEccP384Index = 0x01c00016;

struct EkCertificate {
  TPM2_HANDLE index;  // the NV index, which says by which template the EK is made
  Bytes der;          // X.509, without the padding that some manufacturers add
};

// Of the P-256, P-384 or RSA-2048 EK, the first that is there and may be read without an auth value.
Result<std::optional<EkCertificate>> read_ek_certificate(tss::Esys& esys);

// The DER SEQUENCE that `bytes` begin with, without what follows it; nullopt when there is none.
std::optional<Bytes> leading_der(BytesView bytes);

}  // namespace vtpm::anchor
