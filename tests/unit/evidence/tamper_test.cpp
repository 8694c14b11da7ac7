// SPDX-License-Identifier: Apache-2.0
// No byte of evidence can be changed unnoticed, and no member be left out, doubled or exchanged.
#include "json/strict.h"
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"
#include "tests/support/manufacturer.h"

#include <vtpm/evidence/verifier.h>

using namespace vtpm;
using namespace vtpm::evidence;
using namespace vtpm::test;

namespace {

// The evidence as a text that is equal exactly if the meaning is. Two members carry no statement and are
// blanked: the text of a statement in the event log (its digest is what was measured) and the number of
// nonces in the epoch (it gives the shape of the nonce's path only; FORMATS.md says so of both).
std::string meaning(Evidence evidence) {
  log::EventLog events;
  for (const auto& event : evidence.event_log.events())
    events.append(event.pcr, event.digest, event.content_type,
                  event.content_type == log::kStatementContent ? "" : event.content);
  evidence.event_log = events;
  if (evidence.nonce_proof) evidence.nonce_proof->count = 0;
  return to_json(evidence);
}

}  // namespace

TEST_CASE("tamper: no changed byte of evidence is accepted with another meaning") {
  const EvidencePlan plan = make_plan();
  const Evidence evidence = build(plan);
  const Policy policy = strict_policy(plan);
  const Expectation expected = expectation(plan);
  const std::string good = to_json(evidence);
  const std::string same = meaning(evidence);
  REQUIRE(verify(good, policy, expected).verified());
  std::vector<std::string> accepted;
  std::size_t verified = 0;
  for (std::size_t at = 0; at < good.size(); ++at)
    for (const int mask : {0x01, 0x20, 0x80}) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ mask);
      if (!verify(bad, policy, expected).verified()) continue;
      ++verified;
      const auto parsed = parse_evidence(bad);
      if (!parsed || meaning(*parsed) != same)
        accepted.push_back("byte " + std::to_string(at) + ": " + bad.substr(at < 30 ? 0 : at - 30, 60));
    }
  CHECK(accepted == std::vector<std::string>{});
  // Only the two members that meaning() blanks: each change of another byte was refused.
  CHECK(verified < 3 * std::string_view("schema version 3").size() + 3);
}

TEST_CASE("tamper: no changed byte of the enrolment that a policy relies on is accepted") {
  const EvidencePlan plan = make_plan();
  const TestManufacturer manufacturer;
  const KeyPair authority;
  Evidence evidence = build(plan);
  Policy policy = strict_policy(plan);
  policy.anchor_aks.clear();
  policy.enrolment_authorities = {authority.public_pem()};
  policy.ek_cas = {manufacturer.pem()};
  evidence.enrolments = {enrol(manufacturer.make_ek(), evidence.anchor.ak_public, authority, kNow)};
  REQUIRE(verify(to_json(evidence), policy, expectation(plan)).verified());
  SignedEnrolment& enrolment = evidence.enrolments[0];
  for (Bytes* part : {&enrolment.statement, &enrolment.signature})
    for (std::uint8_t& byte : *part)
      for (const int mask : {0x01, 0x20, 0x80}) {
        const std::uint8_t good = byte;
        byte = static_cast<std::uint8_t>(byte ^ mask);
        REQUIRE_FALSE(verify(to_json(evidence), policy, expectation(plan)).verified());
        byte = good;
      }
}

TEST_CASE("tamper: evidence that is cut short anywhere is refused") {
  const EvidencePlan plan = make_plan();
  const std::string good = to_json(build(plan));
  for (std::size_t size = 0; size < good.size(); size += size + 50 < good.size() ? 7 : 1)
    REQUIRE_FALSE(parse_evidence(std::string_view(good).substr(0, size)));
  CHECK_FALSE(parse_evidence(good + "x"));
  CHECK_FALSE(parse_evidence(good + good));
}

namespace {

// Calls `visit` with the document changed at each member of each object in turn.
template <class Change, class Visit>
void for_each_member(const json::Value& document, const Change& change, const Visit& visit) {
  const json::Value leaves = document.flatten();
  for (const auto& [pointer, leaf] : leaves.items()) {
    // Every prefix of a leaf's pointer is a member or an element.
    for (auto slash = pointer.find('/', 1);; slash = pointer.find('/', slash + 1)) {
      json::Value changed = document;
      const json::Value::json_pointer place(pointer.substr(0, slash));
      json::Value& parent = changed[place.parent_pointer()];
      if (parent.is_object() && change(parent, place.back())) visit(json::dump(changed), place.to_string());
      if (slash == std::string::npos) break;
    }
  }
}

}  // namespace

TEST_CASE("tamper: evidence without one of its members is not verified") {
  const EvidencePlan plan = make_plan();
  const auto document = json::parse(to_json(build(plan)), kMaxEvidenceSize);
  REQUIRE(document);
  std::size_t count = 0;
  for_each_member(
      *document, [](json::Value& object, const std::string& name) { return object.erase(name) == 1; },
      [&](const std::string& changed, const std::string& place) {
        INFO(place);
        CHECK_FALSE(verify(changed, strict_policy(plan), expectation(plan)).verified());
        ++count;
      });
  CHECK(count > 60);
}

TEST_CASE("tamper: evidence with another type of value for a member is malformed") {
  const EvidencePlan plan = make_plan();
  const auto document = json::parse(to_json(build(plan)), kMaxEvidenceSize);
  REQUIRE(document);
  const json::Value replacement = GENERATE(json::Value(nullptr), json::Value(true), json::Value(-1),
                                           json::Value(1.5), json::Value::array({json::Value::array()}));
  for_each_member(
      *document,
      [&](json::Value& object, const std::string& name) {
        object[name] = replacement;
        return true;
      },
      [&](const std::string& changed, const std::string& place) {
        INFO(place << " = " << json::dump(replacement));
        CHECK_FALSE(parse_evidence(changed));
      });
}

TEST_CASE("tamper: an unknown member in any object of evidence is malformed") {
  const EvidencePlan plan = make_plan();
  const auto document = json::parse(to_json(build(plan)), kMaxEvidenceSize);
  REQUIRE(document);
  for_each_member(
      *document,
      [](json::Value& object, const std::string&) {
        object["more"] = 0;
        return true;
      },
      [](const std::string& changed, const std::string& place) {
        INFO(place);
        CHECK_FALSE(parse_evidence(changed));
      });
}

TEST_CASE("tamper: a member of evidence that is there twice is malformed") {
  const EvidencePlan plan = make_plan();
  const std::string good = to_json(build(plan));
  const auto document = json::parse(good, kMaxEvidenceSize);
  REQUIRE(document);
  for (const auto& [name, value] : document->items()) {
    std::string twice = good;
    json::Value one = json::Value::object();
    one[name] = value;
    const std::string member = json::dump(one);
    twice.insert(1, member.substr(1, member.size() - 2) + ",");
    const auto parsed = parse_evidence(twice);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().context == "duplicate member \"" + name + "\"");
  }
}

TEST_CASE("tamper: exchanged members of evidence are not verified") {
  const EvidencePlan plan = make_plan();
  const auto document = json::parse(to_json(build(plan)), kMaxEvidenceSize);
  REQUIRE(document);
  for (const auto& [first, second] :
       std::vector<std::pair<std::string, std::string>>{{"/anchor", "/vtpm"},
                                                        {"/host_start", "/instance_create"},
                                                        {"/host_start/entry", "/instance_create/entry"},
                                                        {"/host_start/index", "/instance_create/index"},
                                                        {"/host_start/path", "/instance_create/path"},
                                                        {"/host_start/path", "/nonce_proof/path"},
                                                        {"/anchor/quote", "/vtpm/quote"},
                                                        {"/anchor/signature", "/vtpm/signature"},
                                                        {"/anchor/ak_public", "/vtpm/ak_public"},
                                                        {"/anchor/quote", "/anchor/signature"},
                                                        {"/epoch/root", "/epoch/nonce_root"},
                                                        {"/epoch/tree_size", "/epoch/time"},
                                                        {"/anchor/pcrs/0", "/anchor/pcrs/1"},
                                                        {"/vtpm/pcrs/17", "/vtpm/pcrs/18"},
                                                        {"/event_log/0", "/event_log/1"},
                                                        {"/event_log/0/digests", "/event_log/1/digests"},
                                                        {"/event_log/0/pcr", "/event_log/1/pcr"}}) {
    json::Value changed = *document;
    std::swap(changed.at(json::Value::json_pointer(first)), changed.at(json::Value::json_pointer(second)));
    INFO(first << " and " << second);
    CHECK_FALSE(verify(json::dump(changed), strict_policy(plan), expectation(plan)).verified());
  }
}
