// SPDX-License-Identifier: Apache-2.0
// Policy: what a verifier demands of evidence. A JSON document; FORMATS.md has its members.
#pragma once

#include <vtpm/evidence/evidence.h>

#include <map>
#include <set>

namespace vtpm::evidence {

inline constexpr std::string_view kPolicyFormat = "vtpm-policy/1";

// Members that are absent in the document demand nothing, but for: allow_embedded_anchor (false), owners and
// max_age. anchor_aks or enrolment_authorities must be there.
struct Policy {
  // The anchor's AK is accepted if its Name is one of these, or one of these authorities (P-256 public keys,
  // PEM) has enrolled it.
  std::set<Bytes> anchor_aks;
  std::set<std::string> enrolment_authorities;
  // CAs (PEM certificates) of which one must have vouched for an enrolled TPM. Empty: those that the
  // authority trusts.
  std::set<std::string> ek_cas;
  bool allow_embedded_anchor = false;
  std::map<unsigned, std::set<Sha256>> anchor_pcrs;  // PCR of the anchor: any of these values
  std::set<Sha256> vtpmd;                            // accepted digests of the binary; empty: any
  std::set<Sha256> engine;                           // likewise
  std::set<std::string> images;                      // accepted image digests "sha256:..."; empty: any
  std::set<std::string> configs;                     // accepted OCI config digests; empty: any
  // Accepted uids of who had the instance made, and claimed its image and configuration. Empty: any; but if
  // images or configs is not, root (0) alone, whose runtime's word these are.
  std::set<std::uint32_t> owners;
  std::map<unsigned, std::set<Sha256>> pcrs;  // PCR of the instance: any of these values
  std::uint64_t max_age_seconds = 300;        // of the epoch, by the epoch's time
  bool require_fresh = false;                 // the nonce must be in the epoch's nonce tree
};

std::string to_json(const Policy& policy);
// Strict as parse_evidence.
Result<Policy> parse_policy(std::string_view json);

// A policy that pins the machine of the evidence: its AK, hardware PCRs 0-7, and its vtpmd and engine
// binaries. An embedded anchor is allowed in it only if the evidence has one. It names no owners, images or
// configs. Does not verify; the caller says whether it did.
Result<Policy> policy_from_evidence(const Evidence& evidence);

}  // namespace vtpm::evidence
