// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"

#include <vtpm/evidence/evidence.h>
#include <vtpm/os/encoding.h>

using namespace vtpm;
using namespace vtpm::evidence;
using namespace vtpm::test;

namespace {

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("evidence: what is written is read as the same") {
  Evidence evidence = build(make_plan());
  const bool with_options = GENERATE(true, false);
  if (with_options)
    evidence.ek_certificate = Bytes{0x30, 0x82, 0x00};
  else
    evidence.nonce_proof.reset();
  const std::string json = to_json(evidence);
  const auto again = parse_evidence(json);
  REQUIRE(again);
  CHECK(to_json(*again) == json);
  CHECK(again->ek_certificate == evidence.ek_certificate);
  CHECK(again->epoch.time == evidence.epoch.time);
  CHECK(again->nonce_proof.has_value() == with_options);
}

TEST_CASE("evidence: it is one line of compact JSON with its format") {
  const std::string json = to_json(build(make_plan()));
  CHECK(json.find('\n') == std::string::npos);
  CHECK(json.find(R"("format":"vtpm-evidence/1")") != std::string::npos);
}

TEST_CASE("evidence: white space around and in it is no difference") {
  const std::string json = to_json(build(make_plan()));
  const auto parsed = parse_evidence("\n" + replaced(json, ",\"epoch\":", ",\r\n \"epoch\" : ") + "\n");
  REQUIRE(parsed);
  CHECK(to_json(*parsed) == json);
}

TEST_CASE("evidence: errors name the member") {
  const std::string json = to_json(build(make_plan()));
  const auto context = [&](std::string_view from, std::string_view to) {
    const auto parsed = parse_evidence(replaced(json, from, to));
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().kind() == ErrorCode::Malformed);
    return parsed.error().context;
  };
  CHECK(context("vtpm-evidence/1", "vtpm-evidence/2") == R"(format: must be "vtpm-evidence/1")");
  CHECK(context(R"("kind":"tpm")", R"("kind":"fTPM")") == R"(anchor.kind: must be "tpm" or "embedded")");
  CHECK(context(R"("index":3)", R"("index":"3")").starts_with("instance_create.index: "));
  CHECK(context(R"("tree_size":5)", R"("tree_size":5.0)").starts_with("epoch.tree_size: "));
  CHECK(context(R"("tree_size":5)", R"("tree_size":-0)").starts_with("epoch.tree_size: "));
  CHECK(context(R"("tree_size":5)", R"("tree_size":05)") == "not valid JSON");
  CHECK(context(R"("tree_size":5)", R"("tree_size":18446744073709551616)").starts_with("epoch.tree_size: "));
  CHECK(context(R"("nonce":"5a)", R"("nonce":"5A)").starts_with("nonce: "));
  CHECK(context(R"("nonce_root":")", R"("nonce_root":"00)").starts_with("epoch.nonce_root: "));
  CHECK(context(R"("pcr":18)", R"("pcr":24)").starts_with("event_log: [1].pcr: "));
  CHECK(context(R"("recnum":1)", R"("recnum":2)").starts_with("event_log: [1]: "));
  CHECK(context(R"("hashAlg":"sha256")", R"("hashAlg":"sha1")").find("hashAlg") != std::string::npos);
  CHECK(context(R"("pcrs":{"0":)", R"("pcrs":{"00":)").starts_with("anchor.pcrs: "));
  CHECK(context(R"("pcrs":{"0":)", R"("pcrs":{"24":)").starts_with("anchor.pcrs: "));
}

TEST_CASE("evidence: nonces shorter than 8 or longer than 64 bytes are malformed") {
  EvidencePlan plan = make_plan();
  const auto [size, good] =
      GENERATE(table<std::size_t, bool>({{0, false}, {7, false}, {8, true}, {64, true}, {65, false}}));
  plan.nonce.assign(size, 1);
  CHECK(parse_evidence(to_json(build(plan))).has_value() == good);
}

TEST_CASE("evidence: a path longer than any tree's and a document over the limit are malformed") {
  Evidence evidence = build(make_plan());
  evidence.host_start.path.resize(64);
  CHECK(parse_evidence(to_json(evidence)));
  evidence.host_start.path.resize(65);
  CHECK_FALSE(parse_evidence(to_json(evidence)));
  CHECK_FALSE(parse_evidence(to_json(build(make_plan())) + std::string(kMaxEvidenceSize, ' ')));
}

TEST_CASE("evidence: a second spelling of base64 is malformed") {
  Evidence evidence = build(make_plan());
  evidence.ek_certificate = Bytes{0xff};
  const std::string json = to_json(evidence);
  CHECK_FALSE(parse_evidence(replaced(json, R"("/w==")", R"("/x==")")));
  CHECK_FALSE(parse_evidence(replaced(json, R"("/w==")", R"("/w")")));
  CHECK_FALSE(parse_evidence(replaced(json, R"("/w==")", R"("_w==")")));
  CHECK_FALSE(parse_evidence(replaced(json, R"("/w==")", R"(" /w==")")));
}

TEST_CASE("epoch: the qualifying data is the hash that FORMATS.md gives") {
  const Epoch epoch{0x0102030405060708, *tpm::sha256_from_hex(std::string(64, 'a')),
                    *tpm::sha256_from_hex(std::string(64, 'b')), 0x1112131415161718};
  // The hexadecimal value was computed by another implementation of SHA-256.
  Bytes hashed{'v', 't', 'p', 'm', ' ', 'e', 'p', 'o', 'c', 'h', ' ', 'v', '1', 0, 1, 2, 3, 4, 5, 6, 7, 8};
  hashed.insert(hashed.end(), 32, 0xaa);
  hashed.insert(hashed.end(), 32, 0xbb);
  for (std::uint8_t b = 0x11; b <= 0x18; ++b)
    hashed.push_back(b);
  CHECK(qualifying_data(epoch) == tpm::sha256(hashed));
  CHECK(to_hex(qualifying_data(epoch)) == "810f9bcbe40b909c512eb808f61f6f6bfef1f9d5e48cd3d399945bcf5216a772");
}

TEST_CASE("binding: the instance's qualifying data is over the nonce and the anchor's quote") {
  const Bytes nonce(8, 7), quote{1, 2, 3};
  Bytes hashed = nonce;
  put(hashed, tpm::sha256(quote));
  CHECK(qualifying_data(nonce, quote) == tpm::sha256(hashed));
}
