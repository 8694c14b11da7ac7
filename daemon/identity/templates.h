// SPDX-License-Identifier: Apache-2.0
// The public templates of the keys that the project makes (FORMATS.md: "Keys and handles").
#pragma once

#include <vtpm/tpm/digest.h>

#include <tss2/tss2_tpm2_types.h>

namespace vtpm::identity {

// The kinds of EK that are made and recognised (TCG EK Credential Profile 2.x).
enum class EkProfile {
  EccP256,  // template L-2 (B.3.4)
  EccP384,  // template H-3 (B.4.5), of the high range
  Rsa2048,  // template L-1 (B.3.3)
};
TPMT_PUBLIC ek_template(EkProfile profile = EkProfile::EccP256) noexcept;
// SRK: ECC P-256 as in the TCG TPM v2.0 Provisioning Guidance, 7.5.1.
TPMT_PUBLIC srk_template() noexcept;
// A restricted ECDSA P-256 SHA-256 signing key, exempt from dictionary attack protection: somebody's wrong
// passwords must not stop attestation. `unique` goes into the key's derivation, as unique.x of the template.
TPMT_PUBLIC attestation_key_template(const tpm::Sha256& unique) noexcept;
// The AK of every instance: always the same template, so that it can be derived again.
TPMT_PUBLIC instance_ak_template() noexcept;

}  // namespace vtpm::identity
