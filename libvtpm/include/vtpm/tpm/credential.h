// SPDX-License-Identifier: Apache-2.0
// TPM2_MakeCredential in software: what a verifier, which has no TPM, encrypts so that one TPM alone can read
// it, and only while it holds a certain key (TPM 2.0 Library Part 1, clause 24, "Credential Protection").
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>

namespace vtpm::tpm {

// The two parameters of TPM2_ActivateCredential, each with its size field.
struct Credential {
  Bytes id_object;         // TPM2B_ID_OBJECT
  Bytes encrypted_secret;  // TPM2B_ENCRYPTED_SECRET
};

// Whether a TPMT_PUBLIC has the attributes of an endorsement key: restricted, decrypt, fixedTPM, fixedParent,
// sensitiveDataOrigin, and not sign; RSA (2048 to 4096 bits) or ECC (P-256, P-384), nameAlg SHA-256 or
// SHA-384, AES in CFB mode. Whether its manufacturer made it, its certificate says. Malformed, with what it
// lacks.
Result<> check_endorsement_key(BytesView tpmt_public);

// `secret`: 1 byte up to the size of the digest of the EK's nameAlg. The TPM with the EK gives it away to who
// may use the EK (policy of its template) and the object named `name`, which must be in that TPM. Malformed:
// the EK is none (check_endorsement_key), or a size is out of range.
Result<Credential> make_credential(BytesView ek_public, BytesView name, const Secret& secret);

}  // namespace vtpm::tpm
