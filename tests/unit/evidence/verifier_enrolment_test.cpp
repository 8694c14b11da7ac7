// SPDX-License-Identifier: Apache-2.0
// Which enrolments a verifier accepts in place of a pinned AK.
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"
#include "tests/support/manufacturer.h"

#include <vtpm/evidence/verifier.h>

using namespace vtpm;
using namespace vtpm::evidence;
using namespace vtpm::test;

namespace {

using Names = std::vector<std::string>;

Names failed_checks(const Verdict& verdict) {
  Names names;
  for (const Check& check : verdict.checks)
    if (!check.passed) names.push_back(check.name);
  return names;
}

// A host that an authority has enrolled, and a policy that takes the authority's word.
struct Enrolled {
  EvidencePlan plan = make_plan();
  TestManufacturer manufacturer;
  TestEk ek = manufacturer.make_ek();
  KeyPair authority;
  Evidence evidence = build(plan);
  Policy policy = strict_policy(plan);

  Enrolled() {
    policy.anchor_aks.clear();
    policy.enrolment_authorities = {authority.public_pem()};
    evidence.enrolments = {enrol(ek, evidence.anchor.ak_public, authority, kNow - 1000)};
  }
  Verdict verdict() const { return verify(to_json(evidence), policy, expectation(plan)); }
};

const Names kEnrolment{"anchor.enrolment"};

}  // namespace

TEST_CASE("verifier: an AK that an accepted authority has enrolled needs no pin") {
  Enrolled host;
  CHECK(host.verdict().verified());
  host.policy.ek_cas = {TestManufacturer().pem(), host.manufacturer.pem()};
  CHECK(host.verdict().verified());
  // Among others'.
  host.evidence.enrolments.insert(host.evidence.enrolments.begin(),
                                  enrol(host.ek, host.evidence.anchor.ak_public, KeyPair(), kNow));
  CHECK(host.verdict().verified());
}

TEST_CASE(
    "verifier: no enrolment, another authority's, another AK's, one of another CA and damage are refused") {
  Enrolled host;
  SECTION("none") {
    host.evidence.enrolments.clear();
  }
  SECTION("another authority") {
    host.policy.enrolment_authorities = {KeyPair().public_pem()};
  }
  SECTION("another AK") {
    host.evidence.enrolments = {enrol(host.ek, SigningKey().public_area(), host.authority, kNow)};
  }
  SECTION("another CA") {
    host.policy.ek_cas = {TestManufacturer().pem()};
  }
  SECTION("damaged statement") {
    host.evidence.enrolments[0].statement.back() ^= 1;
  }
  SECTION("damaged signature") {
    host.evidence.enrolments[0].signature.back() ^= 1;
  }
  SECTION("no certificate") {
    host.ek.certificate = Bytes(10, 1);
    host.evidence.enrolments = {enrol(host.ek, host.evidence.anchor.ak_public, host.authority, kNow)};
  }
  const Verdict verdict = host.verdict();
  CHECK(failed_checks(verdict) == kEnrolment);
}

TEST_CASE(
    "verifier: a pinned AK needs no enrolment, and an enrolment is no pin where the policy has only pins") {
  Enrolled host;
  host.policy.anchor_aks = {host.plan.anchor_key.name()};
  host.evidence.enrolments.clear();
  CHECK(host.verdict().verified());
  Enrolled other;
  other.policy.enrolment_authorities.clear();
  other.policy.anchor_aks = {SigningKey().name()};
  CHECK(failed_checks(other.verdict()) == Names{"anchor.key"});
}
