// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/hostile_fd.h"

#include "tests/support/catch_result.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

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

TEST_CASE("hostile fd: what is not a cgroup.procs that is open for writing is none") {
  const auto is_refused = [](int fd) {
    const auto checked = check_cgroup_procs(fd);
    return !checked && checked.error().kind() == ErrorCode::Malformed;
  };
  CHECK(is_refused(memory_file(1).get()));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  CHECK(is_refused(writer.get()));
  const test::TemporaryDirectory directory;
  const std::string path = directory.path() + "/cgroup.procs";
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  REQUIRE(file);
  CHECK(is_refused(file.get()));
  const UniqueFd proc(::open("/proc/self/comm", O_RDWR | O_CLOEXEC));
  CHECK(is_refused(proc.get()));
  const UniqueFd link(::open("/proc/self/exe", O_PATH | O_NOFOLLOW | O_CLOEXEC));
  CHECK(is_refused(link.get()));
}

TEST_CASE("hostile fd: only a Unix stream socket that listens is a socket node") {
  const auto is_refused = [](int fd) {
    const auto checked = check_listening_socket(fd);
    return !checked && checked.error().kind() == ErrorCode::Malformed;
  };
  struct Row {
    int domain;
    int type;
    bool listens;
    bool taken;
  };
  const auto row = GENERATE(values<Row>({
      {AF_UNIX, SOCK_STREAM, true, true},
      {AF_UNIX, SOCK_STREAM, false, false},
      {AF_UNIX, SOCK_SEQPACKET, true, false},
      {AF_UNIX, SOCK_DGRAM, false, false},
      {AF_INET, SOCK_STREAM, true, false},
      {AF_INET, SOCK_DGRAM, false, false},
  }));
  const UniqueFd fd(::socket(row.domain, row.type | SOCK_CLOEXEC, 0));
  REQUIRE(fd);
  const sa_family_t family = static_cast<sa_family_t>(row.domain);
  if (row.listens) {
    // An address of the kernel's choice.
    if (row.domain == AF_UNIX)
      REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&family), sizeof family) == 0);
    REQUIRE(::listen(fd.get(), 1) == 0);
  }
  CHECK(is_refused(fd.get()) == !row.taken);
  CHECK((check_listening_socket(fd.get()).has_value()) == row.taken);
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const UniqueFd one(pair[0]), other(pair[1]);
  CHECK(is_refused(one.get()));
  CHECK(is_refused(memory_file(1).get()));
  const UniqueFd path(::open("/", O_PATH | O_CLOEXEC));
  CHECK(is_refused(path.get()));
}
