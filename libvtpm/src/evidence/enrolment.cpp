// SPDX-License-Identifier: Apache-2.0
#include "evidence/authority.h"
#include "log/json_values.h"

#include <vtpm/evidence/enrolment.h>
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/attest.h>
#include <vtpm/tpm/ek_certificate.h>

#include <algorithm>

namespace vtpm::evidence {
namespace {

constexpr std::string_view kRequest = "vtpm-enrolment-request/1";
constexpr std::string_view kChallenge = "vtpm-enrolment-challenge/1";
constexpr std::string_view kAnswer = "vtpm-enrolment-answer/1";
constexpr std::string_view kPending = "vtpm-enrolment-pending/1";
constexpr std::string_view kStatement = "vtpm-enrolment-statement/1";
constexpr std::string_view kSigned = "vtpm-enrolment/1";
constexpr std::size_t kSecretSize = 32;

// One document of a format, whose other members `read` takes.
template <class T, class Read>
Result<T> parse(std::string_view text, std::string_view format, Read read) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxEnrolmentDocument));
  VTPM_TRY(json::Reader document, json::Reader::of(value));
  VTPM_TRY(const json::Item named, document.member("format"));
  VTPM_TRY(const std::string name, named.string());
  if (name != format) return named.malformed("must be \"" + std::string(format) + "\"");
  T out{};
  VTPM_TRY_VOID(read(document, out));
  VTPM_TRY_VOID(document.done());
  return out;
}

json::Value value_of(const std::vector<Bytes>& certificates) {
  json::Value list = json::Value::array();
  for (const Bytes& der : certificates)
    list.push_back(to_base64(der));
  return list;
}

Result<std::vector<Bytes>> read_certificates(json::Reader& document, std::string_view name) {
  VTPM_TRY(const auto items, document.array(name, kMaxIntermediates));
  std::vector<Bytes> certificates;
  for (const json::Item& item : items) {
    VTPM_TRY(Bytes der, item.base64());
    certificates.push_back(std::move(der));
  }
  return certificates;
}

json::Value members_of(const EnrolmentRequest& request) {
  return {{"ek_public", to_base64(request.ek_public)},
          {"ek_certificate", to_base64(request.ek_certificate)},
          {"ak_public", to_base64(request.ak_public)}};
}

Result<> read_request(json::Reader& document, EnrolmentRequest& out) {
  VTPM_TRY(out.ek_public, document.base64("ek_public"));
  VTPM_TRY(out.ek_certificate, document.base64("ek_certificate"));
  VTPM_TRY(out.ak_public, document.base64("ak_public"));
  return {};
}

Result<> read_statement(json::Reader& document, Enrolment& out) {
  VTPM_TRY(out.authority, log::sha256(document, "authority"));
  VTPM_TRY(out.ak_name, log::object_name(document, "ak_name"));
  VTPM_TRY(out.ek_certificate, document.base64("ek_certificate"));
  VTPM_TRY(out.ek_intermediates, read_certificates(document, "ek_intermediates"));
  VTPM_TRY(out.time, document.integer("time"));
  return {};
}

std::string statement_of(const Enrolment& enrolment) {
  return json::dump({{"format", kStatement},
                     {"authority", to_hex(enrolment.authority)},
                     {"ak_name", to_hex(enrolment.ak_name)},
                     {"ek_certificate", to_base64(enrolment.ek_certificate)},
                     {"ek_intermediates", value_of(enrolment.ek_intermediates)},
                     {"time", enrolment.time}});
}

}  // namespace

std::string to_json(const EnrolmentRequest& request) {
  json::Value document = members_of(request);
  document["format"] = kRequest;
  return json::dump(document);
}

std::string to_json(const EnrolmentChallenge& challenge) {
  return json::dump({{"format", kChallenge},
                     {"ak_name", to_hex(challenge.ak_name)},
                     {"id_object", to_base64(challenge.credential.id_object)},
                     {"encrypted_secret", to_base64(challenge.credential.encrypted_secret)}});
}

std::string to_json(const EnrolmentAnswer& answer) {
  return json::dump(
      {{"format", kAnswer}, {"ak_name", to_hex(answer.ak_name)}, {"secret", to_base64(answer.secret)}});
}

std::string to_json(const PendingEnrolment& pending) {
  json::Value document = members_of(pending.request);
  document["format"] = kPending;
  document["ek_intermediates"] = value_of(pending.ek_intermediates);
  document["secret_digest"] = to_hex(pending.secret_digest);
  return json::dump(document);
}

std::string to_json(const SignedEnrolment& enrolment) {
  return json::dump({{"format", kSigned},
                     {"statement", to_base64(enrolment.statement)},
                     {"signature", to_base64(enrolment.signature)}});
}

Result<EnrolmentRequest> parse_enrolment_request(std::string_view text) {
  return parse<EnrolmentRequest>(text, kRequest, read_request);
}

Result<EnrolmentChallenge> parse_enrolment_challenge(std::string_view text) {
  return parse<EnrolmentChallenge>(text, kChallenge, [](json::Reader& document, auto& out) -> Result<> {
    VTPM_TRY(out.ak_name, log::object_name(document, "ak_name"));
    VTPM_TRY(out.credential.id_object, document.base64("id_object"));
    VTPM_TRY(out.credential.encrypted_secret, document.base64("encrypted_secret"));
    return {};
  });
}

Result<EnrolmentAnswer> parse_enrolment_answer(std::string_view text) {
  return parse<EnrolmentAnswer>(text, kAnswer, [](json::Reader& document, auto& out) -> Result<> {
    VTPM_TRY(out.ak_name, log::object_name(document, "ak_name"));
    VTPM_TRY(out.secret, document.base64("secret"));
    return {};
  });
}

Result<PendingEnrolment> parse_pending_enrolment(std::string_view text) {
  return parse<PendingEnrolment>(text, kPending, [](json::Reader& document, auto& out) -> Result<> {
    VTPM_TRY_VOID(read_request(document, out.request));
    VTPM_TRY(out.ek_intermediates, read_certificates(document, "ek_intermediates"));
    VTPM_TRY(out.secret_digest, log::sha256(document, "secret_digest"));
    return {};
  });
}

Result<SignedEnrolment> parse_signed_enrolment(std::string_view text) {
  return parse<SignedEnrolment>(text, kSigned, [](json::Reader& document, auto& out) -> Result<> {
    VTPM_TRY(out.statement, document.base64("statement"));
    VTPM_TRY(out.signature, document.base64("signature"));
    return {};
  });
}

Result<BegunEnrolment> begin_enrolment(const EnrolmentRequest& request, const TpmManufacturers& manufacturers,
                                       std::uint64_t time) {
  VTPM_TRY_VOID(tpm::check_endorsement_key(request.ek_public));
  VTPM_TRY_VOID(tpm::check_certified_key(request.ek_certificate, request.ek_public));
  VTPM_TRY(auto intermediates, tpm::certificates_of_pem(manufacturers.intermediates));
  if (intermediates.size() > kMaxIntermediates)
    return Error(ErrorCode::Malformed,
                 "more than " + std::to_string(kMaxIntermediates) + " certificates between EK and root");
  VTPM_TRY_VOID(
      tpm::check_certificate_chain(request.ek_certificate, intermediates, manufacturers.roots, time));
  VTPM_TRY_VOID(tpm::check_attestation_key(request.ak_public));
  VTPM_TRY(Bytes name, tpm::name_of_public(request.ak_public));
  VTPM_TRY(const Secret secret, Secret::random(kSecretSize));
  VTPM_TRY(tpm::Credential credential, tpm::make_credential(request.ek_public, name, secret));
  return BegunEnrolment{{std::move(name), std::move(credential)},
                        {request, std::move(intermediates), tpm::sha256(secret.view())}};
}

Result<SignedEnrolment> finish_enrolment(const PendingEnrolment& pending, const EnrolmentAnswer& answer,
                                         const Secret& authority, std::uint64_t time) {
  VTPM_TRY(Bytes name, tpm::name_of_public(pending.request.ak_public));
  if (answer.ak_name != name)
    return Error(ErrorCode::NotVerified, "the answer is of another host or to another challenge");
  if (tpm::sha256(answer.secret) != pending.secret_digest)
    return Error(ErrorCode::NotVerified, "the answer does not have the challenge's secret");
  VTPM_TRY(const tpm::Sha256 digest, authority_digest(authority));
  const std::string statement =
      statement_of({digest, std::move(name), pending.request.ek_certificate, pending.ek_intermediates, time});
  const Bytes bytes(statement.begin(), statement.end());
  VTPM_TRY(Bytes signature, sign(authority, bytes));
  return SignedEnrolment{bytes, std::move(signature)};
}

Result<Enrolment> read_enrolment(const SignedEnrolment& enrolment) {
  return parse<Enrolment>(as_text(enrolment.statement), kStatement, read_statement);
}

Result<Enrolment> check_enrolment(const SignedEnrolment& enrolment, std::string_view authority) {
  VTPM_TRY_VOID(verify(authority, enrolment.statement, enrolment.signature));
  VTPM_TRY(Enrolment said, read_enrolment(enrolment));
  VTPM_TRY(const tpm::Sha256 digest, authority_digest(authority));
  if (said.authority != digest)
    return Error(ErrorCode::Malformed, "authority: another than that which signed");
  return said;
}

}  // namespace vtpm::evidence
