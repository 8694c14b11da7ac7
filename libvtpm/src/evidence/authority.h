// SPDX-License-Identifier: Apache-2.0
// Signatures of enrolment authorities: ECDSA with P-256 and SHA-256.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>
#include <vtpm/tpm/digest.h>

#include <string_view>

namespace vtpm::evidence {

// SHA-256 of the public key's DER SubjectPublicKeyInfo. `public_key`: PEM. Not a P-256 key: Malformed.
Result<tpm::Sha256> authority_digest(std::string_view public_key);
// The same, of a private key.
Result<tpm::Sha256> authority_digest(const Secret& private_key);
// DER. `private_key`: PEM without a passphrase. Not such a key: Configuration.
Result<Bytes> sign(const Secret& private_key, BytesView message);
// Whether it is a P-256 public key, PEM SubjectPublicKeyInfo.
bool is_authority(std::string_view public_key);
// `public_key`: PEM SubjectPublicKeyInfo. Not such a key: Malformed. Another signature: NotVerified.
Result<> verify(std::string_view public_key, BytesView message, BytesView signature);

}  // namespace vtpm::evidence
