// SPDX-License-Identifier: Apache-2.0
// The documents of an enrolment and what the verifier's side refuses. That a TPM answers:
// tests/integration/anchor.
#include "json/strict.h"
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"
#include "tests/support/manufacturer.h"

#include <vtpm/evidence/enrolment.h>

using namespace vtpm;
using namespace vtpm::evidence;
using namespace vtpm::test;

namespace {

Secret key_of(const KeyPair& pair) {
  const std::string pem = pair.private_pem();
  return Secret(Bytes(pem.begin(), pem.end()));
}

struct Ceremony {
  TestManufacturer manufacturer;
  TestEk ek = manufacturer.make_ek();
  SigningKey ak;
  EnrolmentRequest request{ek.public_area, ek.certificate, ak.public_area()};
  TpmManufacturers trusted{manufacturer.pem(), ""};
};

ErrorCode refusal(const Result<BegunEnrolment>& begun) {
  REQUIRE_FALSE(begun);
  return begun.error().kind();
}

}  // namespace

TEST_CASE("enrolment: a request of a trusted manufacturer's TPM gets a challenge for its AK") {
  const Ceremony host;
  const auto begun = begin_enrolment(host.request, host.trusted, kNow);
  REQUIRE(begun);
  CHECK(begun->challenge.ak_name == host.ak.name());
  CHECK(begun->pending.request.ak_public == host.request.ak_public);
  const auto again = begin_enrolment(host.request, host.trusted, kNow);
  REQUIRE(again);
  CHECK(again->pending.secret_digest != begun->pending.secret_digest);
}

TEST_CASE("enrolment: another CA's TPM, another key's certificate, a wrong time and no AK get none") {
  const Ceremony host, other;
  CHECK(refusal(begin_enrolment(host.request, other.trusted, kNow)) == ErrorCode::NotVerified);
  EnrolmentRequest mixed = host.request;
  mixed.ek_certificate = host.manufacturer.make_ek().certificate;
  CHECK(refusal(begin_enrolment(mixed, host.trusted, kNow)) == ErrorCode::NotVerified);
  CHECK(refusal(begin_enrolment(host.request, host.trusted, 0)) == ErrorCode::NotVerified);
  EnrolmentRequest no_ak = host.request;
  no_ak.ak_public = host.ek.public_area;
  CHECK(refusal(begin_enrolment(no_ak, host.trusted, kNow)) == ErrorCode::Malformed);
  EnrolmentRequest no_ek = host.request;
  no_ek.ek_public = host.request.ak_public;
  CHECK(refusal(begin_enrolment(no_ek, host.trusted, kNow)) == ErrorCode::Malformed);
}

TEST_CASE("enrolment: the right secret for the right AK is signed, and verifies by that authority alone") {
  const Ceremony host;
  const KeyPair authority, other;
  const Bytes secret(32, 3);
  const PendingEnrolment pending{host.request, {}, tpm::sha256(secret)};
  const auto enrolment = finish_enrolment(pending, {host.ak.name(), secret}, key_of(authority), kNow);
  REQUIRE(enrolment);
  const auto said = check_enrolment(*enrolment, authority.public_pem());
  REQUIRE(said);
  CHECK(said->ak_name == host.ak.name());
  CHECK(said->ek_certificate == host.ek.certificate);
  CHECK(said->time == kNow);
  CHECK(check_enrolment(*enrolment, other.public_pem()).error().kind() == ErrorCode::NotVerified);
  CHECK(check_enrolment(*enrolment, "no key").error().kind() == ErrorCode::Malformed);
  CHECK(check_enrolment(*enrolment, authority.private_pem()).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("enrolment: another secret, another AK and a key that is no authority's are refused") {
  const Ceremony host, other;
  const KeyPair authority;
  const Bytes secret(32, 3);
  const PendingEnrolment pending{host.request, {}, tpm::sha256(secret)};
  CHECK(finish_enrolment(pending, {host.ak.name(), Bytes(32, 4)}, key_of(authority), kNow).error().kind() ==
        ErrorCode::NotVerified);
  CHECK(finish_enrolment(pending, {other.ak.name(), secret}, key_of(authority), kNow).error().kind() ==
        ErrorCode::NotVerified);
  CHECK(finish_enrolment(pending, {host.ak.name(), secret}, Secret(Bytes(10, 'x')), kNow).error().kind() ==
        ErrorCode::Configuration);
}

TEST_CASE("enrolment: its documents are read as they were written, and no other format is taken for one") {
  const Ceremony host;
  const auto begun = begin_enrolment(host.request, host.trusted, kNow).value();
  const Bytes secret(32, 3);
  const SignedEnrolment enrolment = enrol(host.ek, host.request.ak_public, KeyPair(), kNow);
  const std::string request = to_json(host.request), challenge = to_json(begun.challenge),
                    pending = to_json(begun.pending),
                    answer = to_json(EnrolmentAnswer{host.ak.name(), secret}),
                    signed_one = to_json(enrolment);
  CHECK(to_json(parse_enrolment_request(request).value()) == request);
  CHECK(to_json(parse_enrolment_challenge(challenge).value()) == challenge);
  CHECK(to_json(parse_pending_enrolment(pending).value()) == pending);
  CHECK(to_json(parse_enrolment_answer(answer).value()) == answer);
  CHECK(to_json(parse_signed_enrolment(signed_one).value()) == signed_one);
  for (const std::string& text : {challenge, pending, answer, signed_one, std::string("{}"), std::string()})
    CHECK(parse_enrolment_request(text).error().kind() == ErrorCode::Malformed);
  CHECK_FALSE(parse_pending_enrolment(request));
  CHECK_FALSE(parse_enrolment_answer(challenge));
}

TEST_CASE("enrolment: a member that is missing, unknown or of another type is malformed, with its name") {
  const Ceremony host;
  const std::string good = to_json(host.request);
  for (const char* name : {"format", "ek_public", "ek_certificate", "ak_public"}) {
    INFO(name);
    json::Value document = json::Value::parse(good);
    document.erase(name);
    CHECK(parse_enrolment_request(json::dump(document)).error().context.find(name) != std::string::npos);
    document[name] = 7;
    CHECK(parse_enrolment_request(json::dump(document)).error().context.find(name) != std::string::npos);
  }
  json::Value document = json::Value::parse(good);
  document["more"] = 1;
  CHECK_FALSE(parse_enrolment_request(json::dump(document)));
}
