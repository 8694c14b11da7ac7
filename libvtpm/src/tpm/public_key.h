// SPDX-License-Identifier: Apache-2.0
// The public keys of TPMT_PUBLIC as OpenSSL takes them.
#pragma once

#include "tpm/openssl.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <tss2/tss2_tpm2_types.h>

namespace vtpm::tpm {

// Malformed: not the canonical bytes of one.
Result<TPMT_PUBLIC> parse_public(BytesView tpmt_public);

bool is_p256(const TPMT_PUBLIC& area) noexcept;

// An NIST curve as OpenSSL knows it. Others than P-256 and P-384: Malformed.
struct Curve {
  TPM2_ECC_CURVE id;
  const char* name;   // of OpenSSL's group
  std::size_t bytes;  // of a coordinate
};
Result<Curve> curve_of(const TPMT_PUBLIC& area);

// `coordinate`, big-endian and padded to `size` bytes. Longer: Malformed.
Result<Bytes> padded(const TPM2B_ECC_PARAMETER& coordinate, std::size_t size);

// The key of an RSA (2048 to 4096 bits) or ECC (P-256, P-384) public area. Another key, or coordinates that
// are no point of the curve: Malformed.
Result<Key> make_key(const TPMT_PUBLIC& area);

}  // namespace vtpm::tpm
