// SPDX-License-Identifier: Apache-2.0
// Public areas, Names and quotes, as TCG marshalled bytes (TPM 2.0 Library Part 2). Unmarshalled by tss2-mu;
// nothing here talks to a TPM. All input is hostile: trailing bytes, unknown algorithms and lying sizes are
// Malformed.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/digest.h>

#include <map>

namespace vtpm::tpm {

// Values of the PCRs of the SHA-256 bank, by index (0-23).
using PcrValues = std::map<unsigned, Sha256>;

// SHA-256 over the values in ascending index order: TPMS_QUOTE_INFO.pcrDigest of a SHA-256 signing key.
Sha256 pcr_digest(const PcrValues& values) noexcept;

// The Name (nameAlg u16 || digest) of a TPMT_PUBLIC with nameAlg SHA-256: 34 bytes.
Result<Bytes> name_of_public(BytesView tpmt_public);

// Whether a TPMT_PUBLIC is an attestation key that cannot sign what looks like a TPM structure of another's
// making: ECC P-256, ECDSA SHA-256, attributes restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin,
// and not decrypt.
Result<> check_attestation_key(BytesView tpmt_public);

// What a quote says (TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE).
struct Quote {
  Bytes extra_data;     // qualifyingData
  std::uint64_t clock;  // ms, TPMS_CLOCK_INFO
  std::uint32_t reset_count;
  std::uint32_t restart_count;
  bool safe;
  std::uint64_t firmware_version;
  std::vector<unsigned>
      pcrs;  // selected in the SHA-256 bank, ascending; a selection of another bank is Malformed
  Bytes pcr_digest;
};
// A wrong magic (not TPM_GENERATED_VALUE) or type is Malformed.
Result<Quote> parse_quote(BytesView tpms_attest);

// Checks a TPMT_SIGNATURE (ECDSA with SHA-256) over `message` by the P-256 key in a TPMT_PUBLIC.
// A signature that does not verify: NotVerified. Structures that do not parse: Malformed.
Result<> verify_signature(BytesView tpmt_public, BytesView message, BytesView tpmt_signature);

// The key of a P-256 TPMT_PUBLIC as PEM SubjectPublicKeyInfo, for other tools.
Result<std::string> public_key_pem(BytesView tpmt_public);

}  // namespace vtpm::tpm
