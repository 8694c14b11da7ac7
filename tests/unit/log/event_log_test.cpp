// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/log/event_log.h>
#include <vtpm/os/encoding.h>

using namespace vtpm;
using namespace vtpm::log;

namespace {

const std::string kDigest(64, 'a');
const Sha256 kSha = *tpm::sha256_from_hex(kDigest);
const std::string kRecord = R"({"content":"text","content_type":"vtpm.statement","digests":[{"digest":")" +
                            kDigest + R"(","hashAlg":"sha256"}],"pcr":18,"recnum":0})";

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("event log: a record is a CEL-JSON record") {
  EventLog log;
  log.append(18, kSha, kStatementContent, "text");
  CHECK(log.to_json() == "[" + kRecord + "]");
  CHECK(EventLog().to_json() == "[]");
}

TEST_CASE("event log: what is written is read as the same") {
  EventLog log;
  log.append(17, kSha, kLaunchContent, "{\"instance\":\"x\"}");
  log.append(18, kSha, kStatementContent, "any text: \xc3\xa9 \n \"quoted\"");
  const auto again = EventLog::from_json(log.to_json());
  REQUIRE(again);
  CHECK(again->to_json() == log.to_json());
  CHECK(again->events()[1].content == log.events()[1].content);
}

TEST_CASE("event log: replay extends each PCR from zeros, in order") {
  EventLog log;
  CHECK(log.replay().empty());
  log.append(17, kSha, kLaunchContent, "");
  log.append(18, kSha, kStatementContent, "");
  log.append(18, Sha256{}, kStatementContent, "");
  const auto values = log.replay();
  CHECK(values.size() == 2);
  CHECK(values.at(17) == tpm::sha256({Sha256{}, kSha}));
  CHECK(values.at(18) == tpm::sha256({tpm::sha256({Sha256{}, kSha}), Sha256{}}));
}

TEST_CASE("event log: malformed records are refused") {
  const auto [from, to] = GENERATE(
      table<std::string, std::string>({{R"("recnum":0)", R"("recnum":1)"},
                                       {R"("recnum":0)", R"("recnum":"0")"},
                                       {R"("pcr":18)", R"("pcr":24)"},
                                       {R"("pcr":18)", R"("nv_index":18)"},
                                       {R"("hashAlg":"sha256")", R"("hashAlg":"sha384")"},
                                       {R"("hashAlg":"sha256")", R"("hashAlg":"sha256","more":1)"},
                                       {R"("content":"text",)", ""},
                                       {R"("content":"text")", R"("content":{})"},
                                       {R"("content_type":"vtpm.statement")", R"("content_type":"")"},
                                       {R"("digests":[)", R"("digests":[],"digest":[)"},
                                       {"aaaa", "AAAA"},
                                       {"aaaa", "aa"}}));
  INFO(from << " -> " << to);
  REQUIRE(EventLog::from_json("[" + kRecord + "]"));
  const auto log = EventLog::from_json("[" + replaced(kRecord, from, to) + "]");
  REQUIRE_FALSE(log);
  CHECK(log.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("event log: two digests in a record, and what is no array, are refused") {
  const std::string one = R"({"digest":")" + kDigest + R"(","hashAlg":"sha256"})";
  CHECK_FALSE(EventLog::from_json("[" + replaced(kRecord, one, one + "," + one) + "]"));
  CHECK_FALSE(EventLog::from_json("[" + replaced(kRecord, one, "") + "]"));
  CHECK_FALSE(EventLog::from_json(kRecord));
  CHECK_FALSE(EventLog::from_json("[1]"));
  CHECK_FALSE(EventLog::from_json(""));
}

TEST_CASE("event log: 1024 records of the longest descriptions are read, one more is not") {
  EventLog log;
  while (log.events().size() < kMaxEvents)
    log.append(18, kSha, kStatementContent, std::string(1024, '"'));
  CHECK(EventLog::from_json(log.to_json()));
  log.append(18, kSha, kStatementContent, "");
  CHECK(EventLog::from_json(log.to_json()).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("launch: the document has one spelling and is read as the same") {
  const Launch launch{"i1", 1000, "c1", "sha256:" + kDigest, std::nullopt};
  const std::string document = launch_document(launch);
  CHECK(document == R"({"container":"c1","format":"vtpm-launch/1","image":"sha256:)" + kDigest +
                        R"(","instance":"i1","owner":1000})");
  const auto again = parse_launch(document);
  REQUIRE(again);
  CHECK(again->instance == "i1");
  CHECK(again->owner == 1000);
  CHECK(again->container == "c1");
  CHECK(again->image == launch.image);
  CHECK_FALSE(again->config);
}

TEST_CASE("launch: malformed documents are refused") {
  REQUIRE(parse_launch(R"({"format":"vtpm-launch/1","instance":"i1","owner":0})"));
  const std::string document = GENERATE(
      "", "{}", R"({"format":"vtpm-launch/1","owner":0})",
      R"({"format":"vtpm-launch/2","instance":"i1","owner":0})", R"({"instance":"i1","owner":0})",
      R"({"format":"vtpm-launch/1","instance":"i1","more":1,"owner":0})",
      R"({"format":"vtpm-launch/1", "instance":"i1","owner":0})",
      R"({"instance":"i1","format":"vtpm-launch/1","owner":0})",
      R"({"format":"vtpm-launch/1","image":"latest","instance":"i1","owner":0})",
      R"({"format":"vtpm-launch/1","instance":"","owner":0})",
      R"({"format":"vtpm-launch/1","instance":1,"owner":0})", R"({"format":"vtpm-launch/1","instance":"i1"})",
      R"({"format":"vtpm-launch/1","instance":"i1","owner":"0"})",
      R"({"format":"vtpm-launch/1","instance":"i1","owner":4294967296})");
  INFO(document);
  CHECK_FALSE(parse_launch(document));
}
