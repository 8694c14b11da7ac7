// SPDX-License-Identifier: Apache-2.0
// The endorsement key of the anchor's TPM: what its manufacturer's certificate is for, and how it proves that
// the attestation key is in the same TPM (TPM2_ActivateCredential).
#pragma once

#include "daemon/tss/object.h"

#include <vtpm/tpm/credential.h>

namespace vtpm::anchor {

struct EndorsementKey {
  tss::Object object;
  Bytes public_area;  // TPMT_PUBLIC
  Bytes certificate;  // X.509 DER, for this key
};

// The EK of the certificate in NV (ek_certificate.h): a persistent key that it is for, or the one that the
// certificate's template gives, which stays loaded while the result lives. A slow TPM takes seconds, for RSA
// up to a minute. No certificate: NotFound. A certificate whose key this TPM does not have: Corrupt.
Result<EndorsementKey> open_endorsement_key(tss::Esys& esys);

// What the credential holds, if it was made for this EK and for the Name of `key` (whose auth value ESYS
// knows). It travels encrypted in a session that is salted to the EK. Another credential: Malformed. An EK
// that demands more than the endorsement hierarchy's empty auth value: Configuration.
Result<Secret> activate_credential(tss::Esys& esys, const tss::Object& key, const EndorsementKey& ek,
                                   const tpm::Credential& credential);

}  // namespace vtpm::anchor
