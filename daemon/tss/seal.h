// SPDX-License-Identifier: Apache-2.0
// Data sealed in a TPM under a storage key, and unsealed so that nobody on the bus between can read it.
#pragma once

#include "daemon/tss/object.h"
#include "daemon/tss/quote.h"

#include <vtpm/os/secret.h>

namespace vtpm::tss {

// A keyedHash object as TPM2_Create returns it: useless without the TPM that made it.
struct Sealed {
  Bytes public_area;   // TPMT_PUBLIC
  Bytes private_area;  // TPM2B_PRIVATE without its size
};

// Seals under `parent` (a storage key with an empty auth value), at most 128 bytes; with `pcrs`, to the
// values that they have now. Without, the object's auth value is empty. The data travel encrypted in a
// session that is salted to the parent.
Result<Sealed> seal(Esys& esys, const Object& parent, BytesView data, const PcrSelection& pcrs);

// Loads and unseals; the answer travels encrypted likewise. Refused: TPM2_RC_POLICY_FAIL where the PCRs have
// other values, another code where the TPM does not take the object. An area that does not parse: Malformed.
Result<std::variant<Secret, Refused>> unseal(Esys& esys, const Object& parent, const Sealed& sealed,
                                             const PcrSelection& pcrs);

}  // namespace vtpm::tss
