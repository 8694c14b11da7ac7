// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"

#include <vtpm/evidence/verifier.h>

#include <algorithm>
#include <functional>

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

Verdict verdict_on(const Evidence& evidence, const EvidencePlan& plan) {
  return verify(to_json(evidence), strict_policy(plan), expectation(plan));
}

// The plan is changed before it is signed: by a host or a supervisor that lies.
Names refused_plan(const std::function<void(EvidencePlan&)>& change) {
  EvidencePlan plan = make_plan();
  const Policy policy = strict_policy(plan);
  const Expectation expected = expectation(plan);
  change(plan);
  return failed_checks(verify(to_json(build(plan)), policy, expected));
}

// The evidence is changed after it was signed: on its way.
Names refused_evidence(const std::function<void(Evidence&)>& change) {
  const EvidencePlan plan = make_plan();
  Evidence evidence = build(plan);
  change(evidence);
  return failed_checks(verdict_on(evidence, plan));
}

Names refused_policy(const std::function<void(Policy&)>& change) {
  const EvidencePlan plan = make_plan();
  Policy policy = strict_policy(plan);
  change(policy);
  return failed_checks(verify(to_json(build(plan)), policy, expectation(plan)));
}

Names refused_expectation(Bytes nonce, std::uint64_t time) {
  const EvidencePlan plan = make_plan();
  return failed_checks(verify(to_json(build(plan)), strict_policy(plan), {std::move(nonce), time}));
}

}  // namespace

TEST_CASE("verifier: evidence that satisfies a strict policy is verified, link by link") {
  const EvidencePlan plan = make_plan();
  const Verdict verdict = verdict_on(build(plan), plan);
  CHECK(verdict.reasons() == Names{});
  REQUIRE(verdict.verified());
  const Names links = {
      "evidence.format",  "evidence.nonce", "anchor.kind",         "anchor.key",         "anchor.enrolment",
      "anchor.signature", "anchor.epoch",   "anchor.pcrs",         "policy.anchor-pcrs", "log.host-start",
      "policy.vtpmd",     "policy.engine",  "log.instance-create", "vtpm.key",           "vtpm.signature",
      "vtpm.binding",     "vtpm.pcrs",      "vtpm.event-log",      "vtpm.launch",        "policy.images",
      "policy.configs",   "policy.owners",  "policy.pcrs",         "freshness.age",      "freshness.nonce"};
  Names names;
  for (const auto& check : verdict.checks)
    names.push_back(check.name);
  CHECK(names == links);
  CHECK(verdict.anchor == AnchorKind::Tpm);
  REQUIRE(verdict.launch);
  CHECK(verdict.launch->instance == "inst-1");
  CHECK(verdict.launch->owner == 0);
  CHECK(verdict.launch->image == kImage);
}

TEST_CASE("verifier: an instance without container, image and statements is verified by an open policy") {
  EvidencePlan plan = make_plan();
  set_launch(plan, {"bare", 12345, {}, {}, {}});
  const std::string document = plan.events.events().front().content;
  plan.events = log::EventLog();
  plan.events.append(17, plan.create.launch, log::kLaunchContent, document);
  plan.vtpm_pcrs[18] = {};
  plan.fresh = false;
  Policy policy;
  policy.anchor_aks = {plan.anchor_key.name()};
  const Verdict verdict = verify(to_json(build(plan)), policy, expectation(plan));
  CHECK(verdict.reasons() == Names{});
  CHECK(verdict.verified());
}

TEST_CASE("verifier: a verdict without checks is not verified") {
  CHECK_FALSE(Verdict{}.verified());
}

TEST_CASE("verifier: what is not evidence is refused as evidence.format with the member's name") {
  const EvidencePlan plan = make_plan();
  const Verdict verdict = verify(R"({"format":"vtpm-evidence/1"})", strict_policy(plan), expectation(plan));
  REQUIRE(verdict.reasons().size() == 1);
  CHECK(verdict.reasons().front() == "evidence.format: anchor: missing");
  CHECK_FALSE(verify("", strict_policy(plan), expectation(plan)).verified());
}

TEST_CASE("verifier: the nonce must be the verifier's") {
  CHECK(refused_expectation(Bytes(32, 0x5b), kNow) == Names{"evidence.nonce"});
  CHECK(refused_expectation({}, kNow) == Names{"evidence.nonce"});
}

TEST_CASE("verifier: an epoch that is too old or from the future is refused") {
  const EvidencePlan plan = make_plan();
  CHECK(refused_expectation(plan.nonce, plan.time + 300'000) == Names{});
  CHECK(refused_expectation(plan.nonce, plan.time + 300'001) == Names{"freshness.age"});
  CHECK(refused_expectation(plan.nonce, plan.time - 60'000) == Names{});
  CHECK(refused_expectation(plan.nonce, plan.time - 60'001) == Names{"freshness.age"});
  CHECK(refused_plan([](auto& p) { p.time = ~0ULL; }) == Names{"freshness.age"});
  CHECK(refused_plan([](auto& p) { p.time = 0; }) == Names{"freshness.age"});
}

TEST_CASE("verifier: a nonce outside the epoch is refused if the policy demands freshness") {
  CHECK(refused_plan([](auto& p) { p.fresh = false; }) == Names{"freshness.nonce"});
  CHECK(refused_evidence([](auto& e) { e.nonce_proof.reset(); }) == Names{"freshness.nonce"});
  CHECK(refused_evidence([](auto& e) { e.nonce_proof->path.clear(); }) == Names{"freshness.nonce"});
  CHECK(refused_evidence([](auto& e) { e.nonce_proof->index = 0; }) == Names{"freshness.nonce"});
}

TEST_CASE("verifier: a proof of freshness that does not hold is refused though nobody demands one") {
  const EvidencePlan plan = make_plan();
  Evidence evidence = build(plan);
  evidence.nonce_proof->path[0][0] ^= 1;
  Policy policy = strict_policy(plan);
  policy.require_fresh = false;
  CHECK(failed_checks(verify(to_json(evidence), policy, expectation(plan))) == Names{"freshness.nonce"});
}

TEST_CASE("verifier: an embedded anchor is refused unless the policy allows it, and named in any case") {
  const EvidencePlan plan = make_plan(AnchorKind::Embedded);
  Policy policy = strict_policy(plan);
  const Verdict refused = verify(to_json(build(plan)), policy, expectation(plan));
  REQUIRE(failed_checks(refused) == Names{"anchor.kind"});
  CHECK(refused.reasons().front().find("software, not hardware") != std::string::npos);
  policy.allow_embedded_anchor = true;
  const Verdict allowed = verify(to_json(build(plan)), policy, expectation(plan));
  CHECK(allowed.verified());
  CHECK(allowed.anchor == AnchorKind::Embedded);
  CHECK(to_json(allowed).find(R"("anchor":"software, not hardware")") != std::string::npos);
}

TEST_CASE("verifier: evidence that calls an embedded anchor hardware is refused") {
  const EvidencePlan plan = make_plan(AnchorKind::Embedded);
  Evidence evidence = build(plan);
  evidence.anchor_kind = AnchorKind::Tpm;
  Policy policy = strict_policy(plan);
  policy.allow_embedded_anchor = true;
  const Verdict verdict = verify(to_json(evidence), policy, expectation(plan));
  CHECK(failed_checks(verdict) == Names{"anchor.kind"});
  CHECK(verdict.anchor == AnchorKind::Embedded);
}

TEST_CASE("verifier: an anchor that the policy does not name is refused") {
  CHECK(refused_policy([](auto& p) { p.anchor_aks = {SigningKey().name()}; }) == Names{"anchor.key"});
  CHECK(refused_policy([](auto& p) { p.anchor_aks.clear(); }) == Names{"anchor.key"});
  // A host with a key of its own making.
  CHECK(refused_plan([](auto& p) {
          p.anchor_key = SigningKey();
          p.start.ak_name = p.anchor_key.name();
        }) == Names{"anchor.key"});
  CHECK(refused_plan([](auto& p) { p.anchor_key = SigningKey(); }) == Names{"anchor.key", "log.host-start"});
}

TEST_CASE("verifier: values of the anchor that the policy does not accept are refused") {
  CHECK(refused_policy([](auto& p) { p.anchor_pcrs[7] = {tpm::Sha256{}}; }) == Names{"policy.anchor-pcrs"});
  CHECK(refused_policy([](auto& p) { p.anchor_pcrs[9] = {tpm::Sha256{}}; }) == Names{"policy.anchor-pcrs"});
  CHECK(refused_plan([](auto& p) { p.anchor_pcrs[7][0] ^= 1; }) == Names{"policy.anchor-pcrs"});
  CHECK(refused_plan([](auto& p) { p.anchor_pcrs.erase(7); }) == Names{"policy.anchor-pcrs"});
}

TEST_CASE("verifier: binaries, images, configurations and PCRs that the policy does not accept are refused") {
  CHECK(refused_plan([](auto& p) { p.start.vtpmd[0] ^= 1; }) == Names{"policy.vtpmd"});
  CHECK(refused_plan([](auto& p) { p.start.engine[0] ^= 1; }) == Names{"policy.engine"});
  CHECK(refused_plan([](auto& p) { p.vtpm_pcrs[10][0] ^= 1; }) == Names{"policy.pcrs"});
  const std::string other = "sha256:" + std::string(64, '3');
  CHECK(refused_plan([&](auto& p) {
          set_launch(p, {"inst-1", 0, "container-1", other, kConfig});
        }) == Names{"policy.images"});
  CHECK(refused_plan([&](auto& p) {
          set_launch(p, {"inst-1", 0, "container-1", kImage, other});
        }) == Names{"policy.configs"});
  CHECK(refused_plan([](auto& p) {
          set_launch(p, {"inst-1", 0, "container-1", {}, {}});
        }) == Names{"policy.images", "policy.configs"});
}

TEST_CASE("verifier: signatures by other keys are refused") {
  CHECK(refused_evidence([](auto& e) { e.anchor.signature = SigningKey().sign(e.anchor.quote); }) ==
        Names{"anchor.signature"});
  CHECK(refused_evidence([](auto& e) { e.vtpm.signature = SigningKey().sign(e.vtpm.quote); }) ==
        Names{"vtpm.signature"});
  CHECK(refused_evidence([](auto& e) { std::swap(e.anchor.signature, e.vtpm.signature); }) ==
        Names{"anchor.signature", "vtpm.signature"});
}

TEST_CASE("verifier: keys that are no attestation keys are refused") {
  const auto unrestricted = [](const SigningKey& key) { return key.public_area(kAkAttributes & ~0x10000U); };
  EvidencePlan plan = make_plan();
  Evidence evidence = build(plan);
  evidence.anchor.ak_public = unrestricted(plan.anchor_key);
  evidence.vtpm.ak_public = unrestricted(plan.vtpm_key);
  Policy policy = strict_policy(plan);
  policy.anchor_aks.insert(*tpm::name_of_public(evidence.anchor.ak_public));
  CHECK(failed_checks(verify(to_json(evidence), policy, expectation(plan))) ==
        Names{"anchor.key", "log.host-start", "vtpm.key"});
}

TEST_CASE("verifier: an epoch other than the quoted one is refused") {
  CHECK(refused_evidence([](auto& e) { e.epoch.time += 1000; }) == Names{"anchor.epoch"});
  CHECK(refused_evidence([](auto& e) { e.epoch.root[0] ^= 1; }) ==
        Names{"anchor.epoch", "log.host-start", "log.instance-create"});
  CHECK(refused_evidence([](auto& e) { e.epoch.nonce_root[0] ^= 1; }) ==
        Names{"anchor.epoch", "freshness.nonce"});
  CHECK(refused_evidence([](auto& e) { e.epoch.tree_size += 100; }) ==
        Names{"anchor.epoch", "log.host-start", "log.instance-create"});
}

TEST_CASE("verifier: PCR values that were not quoted are refused") {
  CHECK(refused_evidence([](auto& e) { e.anchor.pcrs[3][0] ^= 1; }) == Names{"anchor.pcrs"});
  CHECK(refused_evidence([](auto& e) { e.anchor.pcrs[8] = {}; }) == Names{"anchor.pcrs"});
  CHECK(refused_evidence([](auto& e) { e.vtpm.pcrs[3][0] ^= 1; }) == Names{"vtpm.pcrs"});
  CHECK(refused_evidence([](auto& e) { e.vtpm.pcrs.erase(23); }) == Names{"vtpm.pcrs"});
  CHECK(refused_plan([](auto& p) { p.vtpm_pcrs.erase(23); }) == Names{"vtpm.pcrs"});
}

TEST_CASE("verifier: entries outside the log, of the wrong kind or order are refused") {
  CHECK(refused_evidence([](auto& e) { e.host_start.index = 2; }) ==
        Names{"log.host-start", "log.instance-create"});
  CHECK(refused_evidence([](auto& e) { e.instance_create.path[0][0] ^= 1; }) == Names{"log.instance-create"});
  CHECK(refused_evidence([](auto& e) { e.host_start = e.instance_create; }) ==
        Names{"anchor.kind", "log.host-start", "policy.vtpmd", "policy.engine", "log.instance-create"});
  CHECK(refused_evidence([](auto& e) { e.instance_create = e.host_start; }) ==
        Names{"log.instance-create", "vtpm.key", "vtpm.launch", "policy.images", "policy.configs",
              "policy.owners"});
  CHECK(refused_plan([](auto& p) {
          p.create_before_start = true;
          p.create.host_start = 3;
        }) == Names{"log.instance-create"});
}

TEST_CASE("verifier: a start of the host other than the one under which the instance was made is refused") {
  EvidencePlan plan = make_plan();
  const Policy policy = strict_policy(plan);
  const auto good = plan.start;
  plan.start.vtpmd[0] ^= 1;  // since then another vtpmd runs, anchored by the same AK
  CHECK(failed_checks(verify(to_json(build(plan)), policy, expectation(plan))) == Names{"policy.vtpmd"});
  plan.earlier_start = good;
  const Verdict verdict = verify(to_json(build(plan)), policy, expectation(plan));
  CHECK(verdict.reasons() ==
        Names{"log.instance-create: the instance was made under another start of the host: that of entry 1, "
              "and entry 0 is shown"});
}

TEST_CASE("verifier: an unreadable input is a reason once, and checks that need it name its check") {
  const EvidencePlan plan = make_plan();
  Evidence evidence = build(plan);
  evidence.host_start.entry = {'{'};
  evidence.instance_create.entry = {'{'};
  evidence.anchor.quote = {0};
  evidence.vtpm.quote = {0};
  std::size_t not_checked = 0;
  const Verdict verdict = verdict_on(evidence, plan);
  const Names failed = failed_checks(verdict);
  for (const Check& check : verdict.checks) {
    if (!check.detail.starts_with("not checked: ")) continue;
    ++not_checked;
    INFO(check.name << ": " << check.detail);
    const auto named = check.detail.substr(13, check.detail.size() - 13 - std::string_view(" failed").size());
    CHECK(std::ranges::count(failed, named) == 1);
    CHECK(named != check.name);
  }
  CHECK(not_checked == 10);
  const auto reasons = verdict.reasons();
  CHECK(std::ranges::count(reasons, "log.host-start: not valid JSON") == 1);
  CHECK(std::ranges::count(reasons, "log.instance-create: not valid JSON") == 1);
  CHECK(std::ranges::count(reasons, "policy.owners: not checked: log.instance-create failed") == 1);
}

TEST_CASE("verifier: who claimed the image and the configuration must be accepted") {
  EvidencePlan plan = make_plan();
  set_launch(plan, {"inst-1", 12345, "container-1", kImage, kConfig});
  const std::string evidence = to_json(build(plan));
  const auto failed = [&](const Policy& policy) {
    return failed_checks(verify(evidence, policy, expectation(plan)));
  };
  Policy policy = strict_policy(plan);
  CHECK(failed(policy) == Names{"policy.owners"});
  policy.configs.clear();
  CHECK(failed(policy) == Names{"policy.owners"});
  std::swap(policy.images, policy.configs);
  policy.configs = {kConfig};
  CHECK(failed(policy) == Names{"policy.owners"});
  policy.owners = {12345};
  CHECK(failed(policy).empty());
  policy.owners = {0, 12346};
  CHECK(failed(policy) == Names{"policy.owners"});
  policy.configs.clear();
  CHECK(failed(policy) == Names{"policy.owners"});
  policy.owners.clear();
  CHECK(failed(policy).empty());  // nothing that an owner claims is demanded
}

TEST_CASE("verifier: the launch's check names the owner") {
  const EvidencePlan plan = make_plan();
  const Verdict verdict = verdict_on(build(plan), plan);
  const auto launch = std::ranges::find(verdict.checks, "vtpm.launch", &Check::name);
  REQUIRE(launch != verdict.checks.end());
  CHECK(launch->detail == "instance inst-1, container container-1, owner uid 0");
}

TEST_CASE("verifier: an instance's quote that another key made is refused") {
  CHECK(refused_plan([](auto& p) { p.vtpm_key = SigningKey(); }) == Names{"vtpm.key"});
}

TEST_CASE("verifier: an instance's quote that answers another nonce or anchor quote is refused") {
  EvidencePlan plan = make_plan();
  Evidence first = build(plan);
  plan.time += 1;
  const Evidence second = build(plan);
  first.vtpm = second.vtpm;
  CHECK(failed_checks(verdict_on(first, plan)) == Names{"vtpm.binding"});
}

TEST_CASE("verifier: event logs that do not give the quoted PCRs are refused") {
  CHECK(refused_evidence([](auto& e) { e.event_log.append(18, {}, log::kStatementContent, "more"); }) ==
        Names{"vtpm.event-log"});
  CHECK(refused_evidence([](auto& e) { e.event_log.append(10, {}, log::kStatementContent, "more"); }) ==
        Names{"vtpm.event-log"});
  CHECK(refused_evidence([](auto& e) { e.event_log = log::EventLog(); }) ==
        Names{"vtpm.event-log", "vtpm.launch"});
  // A statement was extended, and its record left out.
  CHECK(refused_plan([](auto& p) {
          const auto launch = p.events.events().front();
          p.events = log::EventLog();
          p.events.append(launch.pcr, launch.digest, launch.content_type, launch.content);
        }) == Names{"vtpm.event-log"});
  // A statement with another type of content.
  CHECK(refused_plan([](auto& p) {
          p.events.append(18, {}, "ima_template", "");
          p.vtpm_pcrs[18] = p.events.replay().at(18);
        }) == Names{"vtpm.event-log"});
}

TEST_CASE("verifier: launches that do not match the instance.create entry are refused") {
  // A second measurement into PCR 17.
  CHECK(refused_plan([](auto& p) {
          p.events.append(17, {}, log::kLaunchContent, "{}");
          p.vtpm_pcrs[17] = p.events.replay().at(17);
        }) == Names{"vtpm.launch"});
  // Another launch than the logged one.
  CHECK(refused_plan([](auto& p) { p.create.launch[0] ^= 1; }) == Names{"vtpm.launch"});
  CHECK(refused_plan([](auto& p) { p.create.instance = "inst-2"; }) == Names{"vtpm.launch"});
  CHECK(refused_plan([](auto& p) { p.create.container = "container-2"; }) == Names{"vtpm.launch"});
  // Root's name in the log, another's in PCR 17.
  CHECK(refused_plan([](auto& p) {
          set_launch(p, {"inst-1", 12345, "container-1", kImage, kConfig});
          p.create.owner = 0;
        }) == Names{"vtpm.launch"});
  // A document that does not have its digest.
  CHECK(refused_plan([](auto& p) {
          const auto digest = p.events.events().front().digest;
          p.events = log::EventLog();
          p.events.append(17, digest, log::kLaunchContent, log::launch_document({"other", 0, {}, {}, {}}));
          p.vtpm_pcrs[18] = {};
        }) == Names{"vtpm.launch"});
}

TEST_CASE("verifier: evidence spliced from two hosts is refused") {
  const EvidencePlan plan = make_plan(), other_plan = make_plan();
  const Evidence evidence = build(plan), other = build(other_plan);
  const std::vector<std::function<void(Evidence&)>> splices = {
      [&](Evidence& e) { e.anchor = other.anchor; },
      [&](Evidence& e) { e.epoch = other.epoch; },
      [&](Evidence& e) { e.host_start = other.host_start; },
      [&](Evidence& e) { e.instance_create = other.instance_create; },
      [&](Evidence& e) { e.vtpm = other.vtpm; },
      [&](Evidence& e) { e.anchor = other.anchor, e.epoch = other.epoch; },
      [&](Evidence& e) { e.vtpm = other.vtpm, e.instance_create = other.instance_create; },
      [&](Evidence& e) {
        e.anchor = other.anchor;
        e.epoch = other.epoch;
        e.host_start = other.host_start;
        e.nonce_proof = other.nonce_proof;
      },
  };
  Policy both = strict_policy(plan);
  both.anchor_aks.insert(other_plan.anchor_key.name());
  REQUIRE(verify(to_json(other), both, expectation(plan)).verified());
  for (std::size_t i = 0; i < splices.size(); ++i) {
    Evidence spliced = evidence;
    splices[i](spliced);
    INFO("splice " << i);
    CHECK_FALSE(verify(to_json(spliced), both, expectation(plan)).verified());
  }
}

TEST_CASE("verifier: what hostile evidence says is shown without control characters") {
  const EvidencePlan plan = make_plan();
  std::string json = to_json(build(plan));
  json.insert(1, R"("\u001b[2Jx":0,)");
  const Verdict verdict = verify(json, strict_policy(plan), expectation(plan));
  REQUIRE(verdict.reasons().size() == 1);
  CHECK(verdict.reasons().front() == "evidence.format: ?[2Jx: unknown member");
}

TEST_CASE("verdict: its JSON has the verdict, the checks and the launch") {
  const EvidencePlan plan = make_plan();
  const std::string good = to_json(verdict_on(build(plan), plan));
  CHECK(good.find(R"("verdict":"verified")") != std::string::npos);
  CHECK(good.find(R"("anchor":"tpm")") != std::string::npos);
  CHECK(good.find(R"("instance":"inst-1","owner":0)") != std::string::npos);
  const std::string bad = to_json(verify("{", strict_policy(plan), expectation(plan)));
  CHECK(
      bad ==
      R"({"checks":[{"detail":"not valid JSON","name":"evidence.format","passed":false}],"verdict":"refused"})");
}
