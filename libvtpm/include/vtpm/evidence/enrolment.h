// SPDX-License-Identifier: Apache-2.0
// Enrolment: how a verifier comes to accept a host by its TPM, not by trust on first use. Four documents pass
// between the two, as files; FORMATS.md has their members.
//
//   host      request    the EK, its manufacturer's certificate, and the AK
//   verifier  challenge  a secret that only the TPM with that EK gives away, and only for that AK
//   host      answer     the secret
//   verifier  enrolment  "the AK is in the TPM of this certificate", signed by the verifier's enrolment
//   authority
//
// A policy names authorities; evidence carries enrolments.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>
#include <vtpm/tpm/credential.h>
#include <vtpm/tpm/digest.h>

#include <string>
#include <string_view>
#include <vector>

namespace vtpm::evidence {

inline constexpr std::size_t kMaxEnrolmentDocument = 256 * 1024;
inline constexpr std::size_t kMaxIntermediates = 8;
// Of one host, each by another authority.
inline constexpr std::size_t kMaxEnrolments = 8;

struct EnrolmentRequest {
  Bytes ek_public;       // TPMT_PUBLIC
  Bytes ek_certificate;  // X.509 DER
  Bytes ak_public;       // TPMT_PUBLIC
};

struct EnrolmentChallenge {
  Bytes ak_name;
  tpm::Credential credential;
};

struct EnrolmentAnswer {
  Bytes ak_name;
  Bytes secret;
};

// What the verifier keeps until the answer comes. Who reads it cannot give the answer.
struct PendingEnrolment {
  EnrolmentRequest request;
  std::vector<Bytes> ek_intermediates;  // X.509 DER, from the EK certificate towards the root
  tpm::Sha256 secret_digest;
};

// What an authority says.
struct Enrolment {
  tpm::Sha256 authority;  // who: SHA-256 of its public key, DER SubjectPublicKeyInfo
  Bytes ak_name;
  Bytes ek_certificate;
  std::vector<Bytes> ek_intermediates;
  std::uint64_t time;  // of the signature, ms since 1970-01-01T00:00:00Z
};

struct SignedEnrolment {
  Bytes statement;  // the exact bytes of the JSON document that says it
  Bytes signature;  // ECDSA with SHA-256, DER
};

std::string to_json(const EnrolmentRequest& request);
std::string to_json(const EnrolmentChallenge& challenge);
std::string to_json(const EnrolmentAnswer& answer);
std::string to_json(const PendingEnrolment& pending);
std::string to_json(const SignedEnrolment& enrolment);

// Strict as parse_evidence.
Result<EnrolmentRequest> parse_enrolment_request(std::string_view json);
Result<EnrolmentChallenge> parse_enrolment_challenge(std::string_view json);
Result<EnrolmentAnswer> parse_enrolment_answer(std::string_view json);
Result<PendingEnrolment> parse_pending_enrolment(std::string_view json);
Result<SignedEnrolment> parse_signed_enrolment(std::string_view json);

// Certificates of CAs that may vouch for a TPM (PEM, one or more), and others that may stand between (PEM,
// maybe none).
struct TpmManufacturers {
  std::string roots;
  std::string intermediates;
};

struct BegunEnrolment {
  EnrolmentChallenge challenge;
  PendingEnrolment pending;
};

// Checks the request: an EK and its certificate, whose chain holds at `time` (ms); an AK that cannot leave
// its TPM and signs only what the TPM made. NotVerified or Malformed, saying which does not hold.
Result<BegunEnrolment> begin_enrolment(const EnrolmentRequest& request, const TpmManufacturers& manufacturers,
                                       std::uint64_t time);

// Checks the answer and signs. `authority`: a P-256 private key, PEM (Configuration when it is none). An
// answer for another request or with another secret: NotVerified.
Result<SignedEnrolment> finish_enrolment(const PendingEnrolment& pending, const EnrolmentAnswer& answer,
                                         const Secret& authority, std::uint64_t time);

// What it says. Nothing is checked but that it can be read: Malformed.
Result<Enrolment> read_enrolment(const SignedEnrolment& enrolment);

// What it says, if it is signed by the authority (a P-256 public key, PEM). By another key: NotVerified. A
// key or a statement that does not parse, or one in another authority's name: Malformed.
Result<Enrolment> check_enrolment(const SignedEnrolment& enrolment, std::string_view authority);

}  // namespace vtpm::evidence
