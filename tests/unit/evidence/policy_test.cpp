// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"
#include "tests/support/manufacturer.h"

#include <vtpm/evidence/policy.h>
#include <vtpm/os/encoding.h>

using namespace vtpm;
using namespace vtpm::evidence;
using namespace vtpm::test;

namespace {

const std::string kAk = "000b" + std::string(64, '7');

std::string policy_with(const std::string& more) {
  return R"({"format":"vtpm-policy/1","anchor_aks":[")" + kAk + "\"]" + more + "}";
}

std::string refusal(const std::string& json) {
  const auto policy = parse_policy(json);
  REQUIRE_FALSE(policy);
  CHECK(policy.error().kind() == ErrorCode::Malformed);
  return policy.error().context;
}

}  // namespace

TEST_CASE("policy: the shortest policy demands an AK, hardware and an age of at most 300 s") {
  const auto policy = parse_policy(policy_with(""));
  REQUIRE(policy);
  CHECK(policy->anchor_aks == std::set<Bytes>{*from_hex(kAk)});
  CHECK_FALSE(policy->allow_embedded_anchor);
  CHECK_FALSE(policy->require_fresh);
  CHECK(policy->max_age_seconds == 300);
  CHECK(policy->owners.empty());
  CHECK(policy->pcrs.empty());
}

TEST_CASE("policy: what is written is read as the same") {
  Policy policy = strict_policy(make_plan());
  policy.owners = {0, 12345};
  const std::string json = to_json(policy);
  const auto again = parse_policy(json);
  REQUIRE(again);
  CHECK(to_json(*again) == json);
  CHECK(again->anchor_pcrs == policy.anchor_pcrs);
  CHECK(again->pcrs == policy.pcrs);
  CHECK(again->images == policy.images);
  CHECK(again->owners == policy.owners);
  CHECK(again->require_fresh);
}

TEST_CASE("policy: a policy that accepts no AK is malformed") {
  CHECK(refusal(R"({"format":"vtpm-policy/1"})") ==
        "anchor_aks or enrolment_authorities must be there: which hosts are accepted");
  CHECK(refusal(R"({"format":"vtpm-policy/1","anchor_aks":[]})") == "anchor_aks: must name at least one");
}

TEST_CASE("policy: errors name the member") {
  const std::string digest(64, '0');
  CHECK(refusal("[]") == "must be an object");
  CHECK(refusal(R"({"format":"vtpm-policy/2"})") == R"(format: must be "vtpm-policy/1")");
  CHECK(refusal(policy_with(R"(,"image":["x"])")) == "image: unknown member");
  CHECK(refusal(policy_with(R"(,"images":["latest"])")).starts_with("images[0]: "));
  CHECK(refusal(policy_with(R"(,"images":[])")) == "images: must name at least one");
  CHECK(refusal(policy_with(R"(,"owners":[])")) == "owners: must name at least one");
  CHECK(refusal(policy_with(R"(,"owners":[0,0])")) == "owners[1]: is there twice");
  CHECK(refusal(policy_with(R"(,"owners":["0"])")).starts_with("owners[0]: "));
  CHECK(refusal(policy_with(R"(,"owners":[4294967296])")).starts_with("owners[0]: "));
  CHECK(refusal(policy_with(R"(,"pcrs":{"24":[]})")).starts_with("pcrs: "));
  CHECK(refusal(policy_with(R"(,"pcrs":{"1":[]})")) == "pcrs.1: must name at least one");
  CHECK(refusal(policy_with(R"(,"pcrs":{"1":")" + digest + "\"}")) == "pcrs.1: must be an array");
  CHECK(refusal(policy_with(R"(,"anchor_pcrs":{"0":["12"]})")).starts_with("anchor_pcrs.0[0]: "));
  CHECK(refusal(policy_with(R"(,"vtpmd":[")" + digest + R"(",")" + digest + R"("])")) ==
        "vtpmd[1]: is there twice");
  CHECK(refusal(policy_with(R"(,"max_age_seconds":-1)")).starts_with("max_age_seconds: "));
  CHECK(refusal(policy_with(R"(,"max_age_seconds":18446744073709551615)")).starts_with("max_age_seconds: "));
  CHECK(refusal(policy_with(R"(,"require_fresh":1)")) == "require_fresh: must be true or false");
  CHECK(refusal(policy_with(R"(,"require_fresh":null)")) == "require_fresh: must be true or false");
  CHECK(refusal(R"({"format":"vtpm-policy/1","anchor_aks":["000c)" + std::string(64, '7') + "\"]}")
            .starts_with("anchor_aks[0]: "));
}

TEST_CASE("policy: a policy made from evidence accepts that machine and no other") {
  EvidencePlan plan = make_plan();
  plan.anchor_pcrs[10] = tpm::sha256(as_bytes("changes while the machine runs"));
  const Evidence evidence = build(plan);
  const auto policy = policy_from_evidence(evidence);
  REQUIRE(policy);
  CHECK(policy->anchor_aks == std::set<Bytes>{plan.anchor_key.name()});
  CHECK(policy->anchor_pcrs.size() == 8);
  CHECK_FALSE(policy->anchor_pcrs.contains(10));
  CHECK_FALSE(policy->allow_embedded_anchor);
  CHECK(policy->vtpmd == std::set<tpm::Sha256>{plan.start.vtpmd});
  CHECK(policy->engine == std::set<tpm::Sha256>{plan.start.engine});
  CHECK(policy->owners.empty());
  const auto reread = parse_policy(to_json(*policy));
  REQUIRE(reread);
  CHECK(verify(to_json(evidence), *reread, expectation(plan)).verified());
  const EvidencePlan other = make_plan();
  CHECK_FALSE(verify(to_json(build(other)), *reread, expectation(other)).verified());
}

TEST_CASE("policy: a policy made from evidence allows an embedded anchor only if the evidence has one") {
  const EvidencePlan plan = make_plan(AnchorKind::Embedded);
  const auto policy = policy_from_evidence(build(plan));
  REQUIRE(policy);
  CHECK(policy->allow_embedded_anchor);
  CHECK(verify(to_json(build(plan)), *policy, expectation(plan)).verified());
}

TEST_CASE("policy: evidence whose host.start is another entry gives no policy") {
  Evidence evidence = build(make_plan());
  evidence.host_start = evidence.instance_create;
  CHECK_FALSE(policy_from_evidence(evidence));
}

TEST_CASE("policy: authorities are named by their keys, and with them a policy needs no AK") {
  Policy policy;
  policy.enrolment_authorities = {KeyPair().public_pem(), KeyPair().public_pem()};
  policy.ek_cas = {TestManufacturer().pem()};
  const auto again = parse_policy(to_json(policy));
  REQUIRE(again);
  CHECK(again->anchor_aks.empty());
  CHECK(again->enrolment_authorities == policy.enrolment_authorities);
  CHECK(again->ek_cas == policy.ek_cas);
}

TEST_CASE("policy: CAs without an authority and keys that are none are malformed") {
  Policy policy;
  policy.anchor_aks = {*from_hex(kAk)};
  policy.ek_cas = {TestManufacturer().pem()};
  CHECK(refusal(to_json(policy)).find("enrolment_authorities") != std::string::npos);
  policy.enrolment_authorities = {KeyPair().private_pem()};
  CHECK(refusal(to_json(policy)).find("enrolment_authorities[0]") != std::string::npos);
  policy.enrolment_authorities = {KeyPair().public_pem()};
  policy.ek_cas = {"no certificate"};
  CHECK(refusal(to_json(policy)).find("ek_cas[0]") != std::string::npos);
}
