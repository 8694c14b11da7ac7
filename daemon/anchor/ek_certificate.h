// SPDX-License-Identifier: Apache-2.0
// The EK certificate that the TPM's manufacturer left in NV (TCG EK Credential Profile, 2.2.1.4).
#pragma once

#include "daemon/tss/esys.h"

#include <optional>

namespace vtpm::anchor {

// X.509 DER, without the padding that some manufacturers add: of the P-256, P-384 or RSA-2048 EK, the first
// that is there and may be read without an auth value.
Result<std::optional<Bytes>> read_ek_certificate(tss::Esys& esys);

// The DER SEQUENCE that `bytes` begin with, without what follows it; nullopt when there is none.
std::optional<Bytes> leading_der(BytesView bytes);

}  // namespace vtpm::anchor
