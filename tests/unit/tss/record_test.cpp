// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/record.h"

#include "daemon/anchor/attestation_key.h"
#include "tests/support/swtpm.h"

#include <vtpm/os/file.h>

#include <catch2/catch.hpp>
#include <sys/stat.h>

#include <algorithm>

using namespace vtpm;
using namespace vtpm::anchor;

namespace {

Record example() {
  return Record{log::AnchorKind::Tpm, kFirstHandle + 3, Bytes(34, 0xab), Secret(Bytes(kAuthSize, 0x5c))};
}

std::string text_of(const std::string& path) {
  return std::string(as_text(read_file(path, 4096).value()));
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("anchor.json: what was written is read, by its owner only") {
  const test::TempDir dir;
  REQUIRE(write_record(dir.path(), example()).has_value());
  struct stat status {};
  REQUIRE(::stat(record_path(dir.path()).c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);

  auto read = read_record(dir.path());
  REQUIRE(read.has_value());
  REQUIRE(read->has_value());
  const Record& record = **read;
  CHECK(record.kind == log::AnchorKind::Tpm);
  CHECK(record.handle == kFirstHandle + 3);
  CHECK(record.ak_name == Bytes(34, 0xab));
  CHECK(std::ranges::equal(record.auth.view(), Bytes(kAuthSize, 0x5c)));
}

TEST_CASE("anchor.json: none is not an error") {
  const test::TempDir dir;
  const auto read = read_record(dir.path());
  REQUIRE(read.has_value());
  CHECK(!read->has_value());
}

TEST_CASE("anchor.json: a damaged one is Corrupt, named and kept") {
  const test::TempDir dir;
  const std::string path = record_path(dir.path());
  REQUIRE(write_record(dir.path(), example()).has_value());
  const std::string good = text_of(path);
  const std::string bad = GENERATE_COPY(
      std::string(), std::string("{}"), good.substr(0, good.size() / 2), good + "x",
      replaced(good, "vtpm-anchor/1", "vtpm-anchor/2"), replaced(good, "\"tpm\"", "\"other\""),
      replaced(good, "abab", "ABAB"), replaced(good, "abab", "ab"), replaced(good, "5c5c", "5c"),
      replaced(good, "\"kind\"", "\"kinds\""), replaced(good, "\"auth\"", "\"more\":1,\"auth\""),
      replaced(good, std::to_string(kFirstHandle + 3), "2164326401"),
      replaced(good, std::to_string(kFirstHandle + 3), "18446744073709551617"), std::string(5000, ' '));
  REQUIRE(replace_file(path, as_bytes(bad), 0600).has_value());
  const auto read = read_record(dir.path());
  REQUIRE(read.has_error());
  CHECK(read.error().kind() == ErrorCode::Corrupt);
  CHECK(read.error().context.find(path) != std::string::npos);
  if (bad.size() < 4096) CHECK(text_of(path) == bad);
}
