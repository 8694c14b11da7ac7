// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/hostile_fd.h"

#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <sys/mman.h>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

UniqueFd memory_file(std::size_t size) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  REQUIRE(write_all(fd.get(), Bytes(size, 'x')));
  return fd;
}

}  // namespace

TEST_CASE("hostile fd: the digest is of the whole file, whatever its offset") {
  const UniqueFd fd = memory_file(100'000);  // the offset is at its end
  const auto digest = digest_of_file(fd.get());
  REQUIRE(digest);
  CHECK(*digest == "sha256:" + to_hex(tpm::sha256(Bytes(100'000, 'x'))));
}

TEST_CASE("hostile fd: config.json may have 4 MiB and not a byte more") {
  CHECK(digest_of_file(memory_file(kMaxConfig).get()));
  const auto refused = digest_of_file(memory_file(kMaxConfig + 1).get());
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("hostile fd: only a regular file is a config.json") {
  CHECK(check_regular_file(memory_file(1).get()));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  CHECK(check_regular_file(reader.get()).error().kind() == ErrorCode::Malformed);
  const UniqueFd directory(::open("/", O_PATH | O_CLOEXEC));
  CHECK(check_regular_file(directory.get()).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("hostile fd: another device or a file is not /dev/fuse") {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK(check_fuse_device(null.get()).error().kind() == ErrorCode::Malformed);
  CHECK(check_fuse_device(memory_file(1).get()).error().kind() == ErrorCode::Malformed);
}
