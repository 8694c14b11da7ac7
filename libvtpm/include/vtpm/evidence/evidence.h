// SPDX-License-Identifier: Apache-2.0
// Evidence: one JSON document that chains a container's TPM to a quote of the hardware TPM. FORMATS.md has
// its members.
#pragma once

#include <vtpm/evidence/enrolment.h>
#include <vtpm/log/entry.h>
#include <vtpm/log/event_log.h>
#include <vtpm/log/merkle.h>

namespace vtpm::evidence {

using log::AnchorKind;
using log::Path;
using tpm::PcrValues;
using tpm::Sha256;

inline constexpr std::string_view kFormat = "vtpm-evidence/1";
inline constexpr std::size_t kMaxEvidenceSize = 4 * 1024 * 1024;
// A verifier's nonce, bytes.
inline constexpr std::size_t kMinNonce = 8;
inline constexpr std::size_t kMaxNonce = 64;

// A quote and what is needed to check it. All TPM structures are TCG marshalled bytes.
struct SignedQuote {
  Bytes ak_public;  // TPMT_PUBLIC
  Bytes quote;      // TPMS_ATTEST
  Bytes signature;  // TPMT_SIGNATURE
  PcrValues pcrs;   // SHA-256 bank, the selected ones
};

// The statement that one hardware quote signs.
struct Epoch {
  std::uint64_t tree_size;
  Sha256 root;         // of the log's first tree_size entries
  Sha256 nonce_root;   // of the tree of this epoch's nonces (leaf: the nonce's bytes); no nonce: SHA-256 of
                       // nothing
  std::uint64_t time;  // ms since 1970-01-01T00:00:00Z, by the host's clock
};
// qualifyingData of the hardware quote: SHA-256("vtpm epoch v1\0" || u64 tree_size || root || nonce_root ||
// u64 time).
Sha256 qualifying_data(const Epoch& epoch) noexcept;
// qualifyingData of the instance's quote: SHA-256(nonce || SHA-256(hardware TPMS_ATTEST)).
Sha256 qualifying_data(BytesView nonce, BytesView hardware_quote) noexcept;

// An entry of the log with its inclusion proof to the epoch's root.
struct LoggedEntry {
  Bytes entry;
  std::uint64_t index;
  Path path;
};

// That the nonce is in the epoch's nonce tree: the hardware quote is younger than the nonce.
struct NonceProof {
  std::uint64_t index;
  std::uint64_t count;  // leaves in the tree
  Path path;
};

struct Evidence {
  AnchorKind anchor_kind;
  SignedQuote anchor;                   // by the hardware TPM
  std::optional<Bytes> ek_certificate;  // of the hardware TPM, X.509 DER
  std::vector<SignedEnrolment>
      enrolments;  // of the anchor's AK, by whom it may concern; at most kMaxEnrolments
  Epoch epoch;
  LoggedEntry host_start;
  LoggedEntry instance_create;
  Bytes nonce;
  std::optional<NonceProof> nonce_proof;  // present when --fresh was asked for
  SignedQuote vtpm;                       // by the instance, all 24 PCRs
  log::EventLog event_log;
};

std::string to_json(const Evidence& evidence);
// Strict: unknown, missing or duplicate members, wrong types, non-canonical encodings and documents over
// kMaxEvidenceSize are Malformed, with the member's name.
Result<Evidence> parse_evidence(std::string_view json);

}  // namespace vtpm::evidence
