// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/slot_files.h"

#include "tests/support/catch_result.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/file.h>

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

using namespace vtpm;
using namespace vtpm::supervisor;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

mode_t mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE(::lstat(path.c_str(), &found) == 0);
  return found.st_mode & 07777;
}

void refused(const Result<SlotFds>& outcome, ErrorCode code, const std::string& name) {
  REQUIRE_FALSE(outcome);
  CHECK(outcome.error().kind() == code);
  CHECK(outcome.error().context.find(name) != std::string::npos);
}

}  // namespace

TEST_CASE("slot files: are their owner's alone, and are found again") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  {
    const auto made = files.create("aa");
    REQUIRE(made);
    REQUIRE(write_all(made->a.get(), as_bytes("A")));
    REQUIRE(write_all(made->b.get(), as_bytes("B")));
  }
  CHECK(mode_of(files.directory("aa")) == 0700);
  for (const auto& path : files.paths("aa"))
    CHECK(mode_of(path) == 0600);
  CHECK(files.present().value() == std::vector<std::string>{"aa"});
  const auto found = files.open("aa", 0ms);
  REQUIRE(found);
  CHECK(as_text(*read_all(found->a.get(), 8)) == "A");
  CHECK(as_text(*read_all(found->b.get(), 8)) == "B");
}

TEST_CASE("slot files: what is there is not made again") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  REQUIRE(files.create("aa"));
  refused(files.create("aa"), ErrorCode::Conflict, "instances/aa");
  CHECK(fs::exists(files.paths("aa")[0]));
}

TEST_CASE("slot files: two engines never have them at the same time") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  auto first = files.create("aa");
  REQUIRE(first);
  refused(files.open("aa", 10ms), ErrorCode::Busy, "instances/aa");
  // The lock is the open file's: a duplicate, as an engine has it, keeps it.
  UniqueFd engine(::dup(first->a.get()));
  first->a.reset();
  refused(files.open("aa", 10ms), ErrorCode::Busy, "instances/aa");
  engine.reset();
  CHECK(files.open("aa", 0ms));
}

TEST_CASE("slot files: what is missing or something else is named and left as it is") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  refused(files.open("aa", 0ms), ErrorCode::Corrupt, "instances/aa is missing");
  REQUIRE(files.create("aa"));
  const std::string b = files.paths("aa")[1];
  fs::remove(b);
  refused(files.open("aa", 0ms), ErrorCode::Corrupt, "aa/slot-b is missing");
  CHECK_FALSE(fs::exists(b));
  REQUIRE(::symlink("slot-a", b.c_str()) == 0);
  refused(files.open("aa", 0ms), ErrorCode::Corrupt, "aa/slot-b is not a regular file");
  fs::remove(b);
  REQUIRE(::mkfifo(b.c_str(), 0600) == 0);
  refused(files.open("aa", 0ms), ErrorCode::Corrupt, "aa/slot-b is not a regular file");
  CHECK(fs::is_fifo(b));
}

TEST_CASE("slot files: nothing is left of what could not be made") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  REQUIRE(fs::create_directory(directory.path("instances")));
  REQUIRE(replace_file(directory.path("instances/aa"), as_bytes("in the way"), 0600));
  CHECK_FALSE(files.create("aa"));
  CHECK(as_text(*read_file(directory.path("instances/aa"), 64)) == "in the way");
}

TEST_CASE("slot files: removal is whole, and may be done twice") {
  const test::TemporaryDirectory directory;
  const SlotFiles files(directory.path());
  CHECK(files.remove("aa"));
  REQUIRE(files.create("aa"));
  REQUIRE(files.create("bb"));
  CHECK(files.remove("aa"));
  CHECK(files.remove("aa"));
  CHECK(files.present().value() == std::vector<std::string>{"bb"});
}

TEST_CASE("slot files: an engine's words are given the files' names") {
  const SlotFiles files("/s");
  CHECK(files.name_files("slot a: torn; slot b: empty; slot a again", "aa") ==
        "/s/instances/aa/slot-a: torn; /s/instances/aa/slot-b: empty; /s/instances/aa/slot-a again");
}
