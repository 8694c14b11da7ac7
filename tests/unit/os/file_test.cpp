// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

using namespace vtpm;
using namespace vtpm::test;

namespace {

Bytes some_bytes(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::uint8_t>(i * 31);
  return bytes;
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

}  // namespace

TEST_CASE("file: what is written is read back, whatever its size") {
  const TemporaryDirectory directory;
  const Bytes bytes = some_bytes(GENERATE(as<std::size_t>(), 0, 1, 16383, 16384, 16385, 100000));
  REQUIRE(replace_file(directory.path("f"), bytes, 0600));
  CHECK(read_file(directory.path("f"), 100000).value() == bytes);
}

TEST_CASE("file: the limit is inclusive, and one byte more is malformed with the path") {
  const TemporaryDirectory directory;
  REQUIRE(replace_file(directory.path("f"), some_bytes(20000), 0600));
  CHECK(read_file(directory.path("f"), 20000));
  const auto over = read_file(directory.path("f"), 19999);
  CHECK(over.error().kind() == ErrorCode::Malformed);
  CHECK(over.error().context.starts_with(directory.path("f") + ": "));
}

TEST_CASE("file: a file that is not there is not found, with the path") {
  const TemporaryDirectory directory;
  const auto missing = read_file(directory.path("f"), 10);
  CHECK(missing.error().kind() == ErrorCode::NotFound);
  CHECK(missing.error().context.find(directory.path("f")) != std::string::npos);
  CHECK_FALSE(read_file(directory.path(), 10));  // a directory
}

TEST_CASE("file: replacing sets the mode whatever the umask, and leaves no temporary file") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("f");
  const mode_t old = ::umask(0077);
  const auto first = replace_file(path, some_bytes(10), 0644);
  ::umask(0);
  const auto second = replace_file(path, some_bytes(20), 0600);
  ::umask(old);
  REQUIRE(first);
  REQUIRE(second);
  CHECK(mode_of(path) == 0600);
  CHECK(read_file(path, 100).value() == some_bytes(20));
  CHECK(std::distance(std::filesystem::directory_iterator(directory.path()), {}) == 1);
}

TEST_CASE("file: replacing does not write into a file or link that stands at the temporary name") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("f"), victim = directory.path("victim");
  REQUIRE(replace_file(victim, some_bytes(5), 0600));
  const bool symbolic = GENERATE(true, false);
  const std::string temporary = path + ".new";
  REQUIRE((symbolic ? ::symlink(victim.c_str(), temporary.c_str())
                    : ::link(victim.c_str(), temporary.c_str())) == 0);
  REQUIRE(replace_file(path, some_bytes(50), 0600));
  CHECK(read_file(victim, 100).value() == some_bytes(5));
  CHECK(read_file(path, 100).value() == some_bytes(50));
}

TEST_CASE("file: a replacement that fails leaves the old file and no temporary one") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("is-a-directory");
  std::filesystem::create_directories(path + "/with-contents");
  CHECK_FALSE(replace_file(path, some_bytes(5), 0600));
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
  CHECK(std::filesystem::is_directory(path));
  CHECK(replace_file(directory.path("none/f"), some_bytes(5), 0600).error().kind() == ErrorCode::NotFound);
}

TEST_CASE("file: a pipe is read to its end") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd out(ends[0]);
  UniqueFd in(ends[1]);
  REQUIRE(write_all(in.get(), some_bytes(1000)));
  in.reset();
  CHECK(read_all(out.get(), 1000).value() == some_bytes(1000));
}

TEST_CASE("file: writing to a descriptor that cannot be written is an error") {
  const UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK_FALSE(write_all(fd.get(), some_bytes(1)));
  const UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (full) CHECK(write_all(full.get(), some_bytes(1)).error().kind() == ErrorCode::Exhausted);
}
