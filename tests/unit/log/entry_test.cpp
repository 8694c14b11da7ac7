// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/log/entry.h>
#include <vtpm/os/encoding.h>

using namespace vtpm;
using namespace vtpm::log;

namespace {

const std::string kDigest(64, 'a');
const std::string kName = "000b" + std::string(64, 'c');
const Sha256 kSha = *tpm::sha256_from_hex(kDigest);

const std::string kStart = R"({"ak_name":")" + kName + R"(","anchor":"tpm","engine":")" + kDigest +
                           R"(","kind":"host.start","pcrs":{"0":")" + kDigest +
                           R"("},"time":1,"version":"0.1.0","vtpmd":")" + kDigest + R"("})";
const std::string kStop = R"({"kind":"host.stop","time":2})";
const std::string kCreate = R"({"ak_name":")" + kName + R"(","config":"sha256:)" + kDigest +
                            R"(","container":"c1","ek_name":")" + kName +
                            R"(","host_start":5,"image":"sha256:)" + kDigest +
                            R"(","instance":"i1","kind":"instance.create","launch":")" + kDigest +
                            R"(","owner":4294967295,"time":3})";
const std::string kDestroy =
    R"({"instance":"i1","kind":"instance.destroy","reason":"requested","time":18446744073709551615})";
const std::string kReset =
    R"({"instance":"i1","kind":"instance.reset","reason":"killed by signal 9","time":4})";
const std::string kState =
    R"({"instance":"i1","kind":"instance.state","sequence":18446744073709551615,"time":5})";

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string refusal(const std::string& bytes) {
  const auto entry = parse_entry(as_bytes(bytes));
  REQUIRE_FALSE(entry);
  CHECK(entry.error().kind() == ErrorCode::Malformed);
  return entry.error().context;
}

}  // namespace

TEST_CASE("entry: each kind has the one spelling that FORMATS.md gives") {
  const Bytes name = *from_hex(kName);
  CHECK(serialize(HostStart{1, AnchorKind::Tpm, name, {{0, kSha}}, kSha, kSha, "0.1.0"}) == kStart);
  CHECK(serialize(HostStop{2}) == kStop);
  CHECK(serialize(InstanceCreate{3, "i1", ~0U, 5, "c1", "sha256:" + kDigest, "sha256:" + kDigest, name, name,
                                 kSha}) == kCreate);
  CHECK(serialize(InstanceDestroy{~0ULL, "i1", "requested"}) == kDestroy);
  CHECK(serialize(InstanceReset{4, "i1", "killed by signal 9"}) == kReset);
  CHECK(serialize(InstanceState{5, "i1", ~0ULL}) == kState);
}

TEST_CASE("entry: what is read is written as the same bytes") {
  const std::string bytes = GENERATE(kStart, kStop, kCreate, kDestroy, kReset, kState);
  const auto entry = parse_entry(as_bytes(bytes));
  REQUIRE(entry);
  CHECK(serialize(*entry) == bytes);
}

TEST_CASE("entry: an instance without container, image and configuration has no such members") {
  const InstanceCreate create{3, "i1", 0, 5, {}, {}, {}, *from_hex(kName), *from_hex(kName), kSha};
  const std::string bytes = serialize(create);
  CHECK(bytes.find("null") == std::string::npos);
  const auto entry = parse_entry(as_bytes(bytes));
  REQUIRE(entry);
  CHECK_FALSE(std::get<InstanceCreate>(*entry).image);
}

TEST_CASE("entry: another spelling of an entry is malformed") {
  CHECK(refusal(" " + kStop) == "an entry has its members sorted and no white space");
  CHECK(refusal(kStop + "\n") == "an entry has its members sorted and no white space");
  CHECK(refusal(R"({"time":2,"kind":"host.stop"})") == "an entry has its members sorted and no white space");
  CHECK(refusal(R"({"kind":"host.\u0073top","time":2})") ==
        "an entry has its members sorted and no white space");
}

TEST_CASE("entry: malformed entries are refused with the member's name") {
  CHECK(refusal("") == "not valid JSON");
  CHECK(refusal("[]") == "must be an object");
  CHECK(refusal("{}") == "kind: missing");
  CHECK(refusal(R"({"kind":"host.pause","time":2})") == "kind: unknown");
  CHECK(refusal(R"({"kind":"host.stop"})") == "time: missing");
  CHECK(refusal(R"({"kind":"host.stop","time":2,"time":2})") == R"(duplicate member "time")");
  CHECK(refusal(R"({"kind":"host.stop","more":1,"time":2})") == "more: unknown member");
  CHECK(refusal(R"({"kind":"host.stop","time":-2})").starts_with("time: "));
  CHECK(refusal(R"({"kind":"host.stop","time":"2"})").starts_with("time: "));
  CHECK(refusal(replaced(kStart, R"("anchor":"tpm")", R"("anchor":"TPM")")).starts_with("anchor: "));
  CHECK(refusal(replaced(kStart, "000bc", "000cc")).starts_with("ak_name: "));
  CHECK(refusal(replaced(kStart, R"({"0":)", R"({"00":)")).starts_with("pcrs: "));
  CHECK(refusal(replaced(kCreate, R"("instance":"i1")", R"("instance":"")")).starts_with("instance: "));
  CHECK(refusal(replaced(kCreate, R"("instance":"i1")", R"("instance":"i\n1")")).starts_with("instance: "));
  CHECK(refusal(replaced(kCreate, R"("container":"c1")", R"("container":null)")).starts_with("container: "));
  CHECK(refusal(replaced(kCreate, R"(,"owner":4294967295)", "")) == "owner: missing");
  CHECK(refusal(replaced(kCreate, "4294967295", "4294967296")).starts_with("owner: "));
  CHECK(refusal(replaced(kCreate, "4294967295", "-1")).starts_with("owner: "));
  CHECK(refusal(replaced(kCreate, R"("host_start":5,)", "")) == "host_start: missing");
  CHECK(refusal(replaced(kCreate, R"("host_start":5)", R"("host_start":"5")")).starts_with("host_start: "));
  CHECK(refusal(replaced(kCreate, R"("image":"sha256:)", R"("image":"sha512:)")).starts_with("image: "));
  CHECK(refusal(replaced(kCreate, R"("container":"c1")", R"("container":")" + std::string(257, 'c') + "\""))
            .starts_with("container: "));
  CHECK(refusal(replaced(kReset, R"("reason":"killed by signal 9")", R"("reason":"")"))
            .starts_with("reason: "));
  CHECK(refusal(replaced(kState, R"("sequence":18446744073709551615,)", "")) == "sequence: missing");
  CHECK(refusal(replaced(kState, "18446744073709551615", "-1")).starts_with("sequence: "));
}
