// SPDX-License-Identifier: Apache-2.0
// Makes real evidence without a TPM: P-256 keys of OpenSSL sign structures marshalled by tss2-mu. A test
// changes the plan before it is signed, or the evidence afterwards.
#pragma once

#include <vtpm/evidence/evidence.h>
#include <vtpm/evidence/policy.h>
#include <vtpm/evidence/verifier.h>
#include <vtpm/tpm/constants.h>

#include <memory>

namespace vtpm::test {

// The attributes of an attestation key: restricted, sign, fixedTPM, fixedParent, sensitiveDataOrigin,
// userWithAuth (TPMA_OBJECT).
inline constexpr std::uint32_t kAkAttributes = 0x00050072;

// A P-256 key that signs as a TPM's attestation key does.
class SigningKey {
 public:
  SigningKey();

  // TPMT_PUBLIC; the hash of its scheme may be another (TPM_ALG_ID).
  Bytes public_area(std::uint32_t attributes = kAkAttributes, std::uint16_t scheme_hash = tpm::kAlgSha256,
                    std::uint16_t name_alg = tpm::kAlgSha256) const;
  Bytes name() const;
  // TPMT_SIGNATURE, ECDSA with SHA-256.
  Bytes sign(BytesView message) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// What goes into a TPMS_ATTEST.
struct QuotePlan {
  Bytes extra_data;
  tpm::PcrValues pcrs;
  std::uint32_t magic = 0xff544347;  // TPM_GENERATED_VALUE
  std::uint16_t type = 0x8018;       // TPM_ST_ATTEST_QUOTE
  std::uint16_t bank = tpm::kAlgSha256;
  std::uint64_t firmware_version = 0x2024;
};
Bytes make_quote(const QuotePlan& plan);

inline constexpr std::uint64_t kNow = 1'760'000'000'000;  // ms
inline constexpr std::uint64_t kStartIndex = 1;           // of the host.start entry
inline const std::string kImage = "sha256:" + std::string(64, '1');
inline const std::string kConfig = "sha256:" + std::string(64, '2');

// Everything that evidence is made of; the members agree with each other until a test changes one.
struct EvidencePlan {
  SigningKey anchor_key;
  SigningKey vtpm_key;
  log::AnchorKind anchor_kind = log::AnchorKind::Tpm;
  log::HostStart start;
  // The entry before `start`, if it is there; the evidence shows this one then.
  std::optional<log::HostStart> earlier_start;
  log::InstanceCreate create;
  log::EventLog events;
  tpm::PcrValues anchor_pcrs;
  tpm::PcrValues vtpm_pcrs;
  Bytes nonce;
  bool fresh = true;
  bool create_before_start = false;
  std::uint64_t time = kNow - 5000;
};
EvidencePlan make_plan(log::AnchorKind kind = log::AnchorKind::Tpm);
// The plan with another launch: its document in the event log, PCR 17 and 18, and the instance.create entry.
void set_launch(EvidencePlan& plan, const log::Launch& launch);
evidence::Evidence build(const EvidencePlan& plan);

// A policy that the evidence of make_plan() satisfies and that demands something of every kind.
evidence::Policy strict_policy(const EvidencePlan& plan);
evidence::Expectation expectation(const EvidencePlan& plan);

}  // namespace vtpm::test
