// SPDX-License-Identifier: Apache-2.0
// Device nodes as programs see them: one open file.
#include "tests/integration/fuse_node/served.h"

#include <sys/stat.h>
#include <sys/uio.h>

#include <atomic>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

TEST_CASE("node: it is a regular file for everybody, of the size of a command") {
  REQUIRE_FUSE();
  const Served served;
  struct stat status {};
  REQUIRE(::stat(served.managed.path().c_str(), &status) == 0);
  CHECK(status.st_mode == (S_IFREG | 0666));
  CHECK(status.st_size == 4096);
}

TEST_CASE("node: commands in sequence, with poll exact before and after") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(GENERATE(0, 1) == 0 ? served.managed : served.raw);
  REQUIRE(fd);
  for (int i = 0; i < 3; ++i) {
    CHECK(ready(fd) == POLLOUT);
    REQUIRE(write_to(fd, get_random(8)) == 12);
    CHECK(ready(fd) == POLLIN);
    const Bytes response = read_from(fd);
    CHECK(code_of(response) == 0);
    CHECK(response.size() == 20);
    CHECK(read_from(fd).empty());
  }
}

TEST_CASE("node: a response is read in parts") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  REQUIRE(write_to(fd, get_random(32)) == 12);
  Bytes response = read_from(fd, 10);
  CHECK(response.size() == 10);
  CHECK(ready(fd) == POLLIN);
  put(response, read_from(fd));
  CHECK(code_of(response) == 0);
  CHECK(response.size() == 44);
  CHECK(ready(fd) == POLLOUT);
}

TEST_CASE("node: a command while a response is unread is EBUSY, after a partial read it is taken") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  REQUIRE(write_to(fd, get_random(8)) == 12);
  CHECK(error_of(write_to(fd, get_random(8))) == EBUSY);
  CHECK(read_from(fd, 10).size() == 10);
  REQUIRE(write_to(fd, get_random(16)) == 12);
  CHECK(read_from(fd).size() == 28);
}

TEST_CASE("node: reading with nothing pending returns nothing") {
  REQUIRE_FUSE();
  const Served served;
  CHECK(read_from(open_node(served.managed)).empty());
  CHECK(read_from(open_node(served.managed, O_NONBLOCK)).empty());
}

TEST_CASE("node: sizes that lie are answered by TPM_RC_COMMAND_SIZE") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  Bytes lying = get_random(8);
  lying[5] = GENERATE(u8{10}, u8{11}, u8{13}, u8{255});
  CHECK(code_of(ask(fd, lying)) == 0x142);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: writes over the buffer's size are answered by TPM_RC_COMMAND_SIZE, and the next works") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  const std::size_t size = GENERATE(4097U, 8192U, 8193U, 16384U, 1U << 20);
  Bytes big = get_random(8);
  big.resize(size);
  for (std::size_t i = 0; i < 4; ++i)
    big[2 + i] = static_cast<u8>(size >> (24 - 8 * i));
  CHECK(code_of(ask(fd, big)) == 0x142);
  CHECK(read_from(fd).empty());
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: a command that fills the buffer reaches the TPM") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  // TPM_RC_COMMAND_CODE is the TPM's own answer; the engine's would be TPM_RC_COMMAND_SIZE.
  const Bytes unknown = command(0x3fff, Bytes(4096 - 10));
  CHECK(code_of(ask(fd, unknown)) == 0x143);
}

TEST_CASE("node: a command gathered from many pieces is one command") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  const Bytes whole = get_random(8);
  iovec pieces[3] = {{const_cast<u8*>(whole.data()), 2},
                     {const_cast<u8*>(whole.data() + 2), 9},
                     {const_cast<u8*>(whole.data() + 11), 1}};
  REQUIRE(::writev(fd.get(), pieces, 3) == 12);
  CHECK(code_of(read_from(fd)) == 0);
}

TEST_CASE("node: writes shorter than a header are EINVAL, of nothing are nothing") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  CHECK(write_to(fd, {}) == 0);
  CHECK(error_of(write_to(fd, Bytes(1))) == EINVAL);
  CHECK(error_of(write_to(fd, Bytes(9))) == EINVAL);
  CHECK(ready(fd) == POLLOUT);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: it has no position: seek and pwrite are refused, O_APPEND and truncate do nothing") {
  REQUIRE_FUSE();
  const Served served;
  UniqueFd fd = open_node(served.managed, O_TRUNC | O_APPEND);
  REQUIRE(fd);
  for (int i = 0; i < 3; ++i)
    CHECK(code_of(ask(fd, get_random(8))) == 0);
  CHECK(error_of(::lseek(fd.get(), 0, SEEK_SET)) == ESPIPE);
  CHECK(error_of(::pwrite(fd.get(), "x", 1, 0)) == ESPIPE);
  CHECK(::ftruncate(fd.get(), 0) == 0);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: an open file is shared with a forked process") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  REQUIRE(write_to(fd, get_random(8)) == 12);
  CHECK(in_child([&] {
          u8 response[64];
          return ::read(fd.get(), response, sizeof response) == 20 ? 0 : 1;
        }) == 0);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: a client that is killed between write and read leaves a clean node") {
  REQUIRE_FUSE();
  const Served served;
  const int status = in_child([&] {
    const UniqueFd fd = open_node(served.managed);
    const Bytes key = create_primary(kOwner);
    if (::write(fd.get(), key.data(), key.size()) > 0) ::raise(SIGKILL);
    return 1;
  });
  REQUIRE(WIFSIGNALED(status));
  const UniqueFd fd = open_node(served.managed);
  REQUIRE(fd);
  CHECK(read_from(fd).empty());
  CHECK(handle_in(ask(fd, create_primary(kOwner))) == 0x80000000);
}

TEST_CASE("node: closing the managed node flushes objects and sessions, closing the raw node does not") {
  REQUIRE_FUSE();
  const Served served;
  // TPM2_StartAuthSession, unbound and unsalted, HMAC, SHA-256.
  const Bytes session = command(0x176, Writer()
                                           .add(u32{0x40000007})
                                           .add(u32{0x40000007})
                                           .add(u16{16})
                                           .add(Bytes(16))
                                           .add(u16{0})
                                           .add(u8{0})
                                           .add(u16{0x0010})
                                           .add(u16{0x000b}));
  for (int round = 0; round < 3; ++round) {
    const UniqueFd fd = open_node(served.managed);
    REQUIRE(fd);
    for (int i = 0; i < 3; ++i) {
      CHECK(code_of(ask(fd, create_primary(kOwner))) == 0);
      CHECK(code_of(ask(fd, session)) == 0);
    }
    // More than the TPM has room for.
    CHECK(code_of(ask(fd, create_primary(kOwner))) == 0);
  }
  CHECK(handle_in(ask(open_node(served.raw), create_primary(kOwner))) == 0x80000000);
  CHECK(handle_in(ask(open_node(served.raw), create_primary(kOwner))) == 0x80000001);
  // What the raw node's user has is not the managed node's to see or to flush.
  CHECK(handle_in(ask(open_node(served.managed), create_primary(kOwner))) == 0x80000000);
  CHECK(handle_in(ask(open_node(served.raw), create_primary(kOwner))) == 0x80000002);
}

TEST_CASE("node: sessions that were saved and left by closed files do not use up the TPM") {
  REQUIRE_FUSE();
  const Served served;
  const Bytes session = command(0x176, Writer()
                                           .add(u32{0x40000007})
                                           .add(u32{0x40000007})
                                           .add(u16{16})
                                           .add(Bytes(16))
                                           .add(u16{0})
                                           .add(u8{0})
                                           .add(u16{0x0010})
                                           .add(u16{0x000b}));
  // More than there are active sessions (64): the last ones wait until an old one may be evicted.
  for (int i = 0; i < 70; ++i) {
    const UniqueFd fd = open_node(served.managed);
    const Bytes started = ask(fd, session);
    REQUIRE(code_of(started) == 0);
    REQUIRE(code_of(ask(fd, command(0x162, Writer().add(handle_in(started))))) == 0);
  }
}

TEST_CASE("node: a waiting poll wakes when another thread writes") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  std::atomic<short> events{0};
  std::thread waiter([&] {
    pollfd p{fd.get(), POLLIN, 0};
    if (::poll(&p, 1, 10000) == 1) events = p.revents;
  });
  // Whether the poll waits already or not, it must end.
  REQUIRE(write_to(fd, get_random(8)) == 12);
  waiter.join();
  CHECK(events == POLLIN);
}

TEST_CASE("node: the supervisor's commands run while a tenant's response waits") {
  REQUIRE_FUSE();
  const Served served;
  const UniqueFd fd = open_node(served.managed);
  REQUIRE(write_to(fd, get_random(8)) == 12);
  CHECK(run(*served.engine.link, get_random(32)).size() == 44);
  CHECK(read_from(fd).size() == 20);
}

TEST_CASE("node: an unmounted node ends quietly, the other serves on") {
  REQUIRE_FUSE();
  const Served served;
  REQUIRE(::umount2(served.managed.path().c_str(), 0) == 0);
  const UniqueFd fd = open_node(served.raw);
  REQUIRE(fd);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
}

TEST_CASE("node: a lazily unmounted node with an open file does not block the other for ever") {
  REQUIRE_FUSE();
  const Served served;
  UniqueFd fd = open_node(served.managed);
  REQUIRE(::umount2(served.managed.path().c_str(), MNT_DETACH) == 0);
  CHECK(code_of(ask(fd, get_random(8))) == 0);
  fd.reset();
  CHECK(open_node(served.raw));
}

TEST_CASE("node: tpm2-tools use it unmodified") {
  REQUIRE_FUSE();
  if (::access("/usr/bin/tpm2_getrandom", X_OK) != 0) VTPM_SKIP("no tpm2-tools");
  const Served served;
  const std::string tcti = " -T device:" + served.managed.path();
  const auto tool = [&](const std::string& line) {
    return std::system((line + tcti + " >/dev/null").c_str());
  };
  CHECK(tool("tpm2_getrandom 8") == 0);
  CHECK(tool("tpm2_pcrread sha256:0,17") == 0);
  CHECK(tool("tpm2_createprimary -C e") == 0);
  CHECK(tool("tpm2_createprimary -C o -G rsa2048") == 0);
  CHECK(tool("tpm2_selftest -f") == 0);
}
