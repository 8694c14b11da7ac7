// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/kernel.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/device/socket_node.h>
#include <vtpm/os/unix_socket.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

using namespace vtpm;
using namespace vtpm::device;
using vtpm::test::TemporaryDirectory;
namespace fs = std::filesystem;

namespace {

// Empty: refused.
UniqueFd connect_to(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    socket.reset();
  return socket;
}

bool can_connect(const std::string& path) {
  return static_cast<bool>(connect_to(path));
}

}  // namespace

TEST_CASE("socket node: its mode is what is asked for, without the umask's bits") {
  struct Row {
    mode_t mode, mask, is;
  };
  const auto row = GENERATE(values<Row>({{0600, 022, 0600},
                                         {0666, 0, 0666},
                                         {0666, 022, 0644},
                                         {0660, 0, 0660},
                                         {0600, 0, 0600},
                                         {0777, 0777, 0}}));
  const TemporaryDirectory directory;
  const std::string path = directory.path("tpm.sock");
  const mode_t old = ::umask(row.mask);
  const auto node = make_socket_node(path, row.mode);
  ::umask(old);
  REQUIRE(node);
  struct stat info {};
  REQUIRE(::lstat(path.c_str(), &info) == 0);
  CHECK(info.st_mode == (S_IFSOCK | row.is));
}

TEST_CASE("socket node: its maker alone may connect, if nothing else is said") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("tpm.sock");
  const mode_t old = ::umask(0);
  const auto node = make_socket_node(path);
  ::umask(old);
  REQUIRE(node);
  struct stat info {};
  REQUIRE(::lstat(path.c_str(), &info) == 0);
  CHECK(info.st_mode == (S_IFSOCK | 0600));
  CHECK(info.st_uid == ::geteuid());
  CHECK(is_socket(path));
  CHECK(can_connect(path));
}

// As by a tenant whose directory it is: once the socket has its name, the name is another file's.
TEST_CASE("socket node: a file that somebody puts in its place meanwhile keeps its mode") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("tpm.sock"), other = directory.path("other");
  std::atomic<bool> done = false;
  std::thread tenant([&] {
    while (!done)
      ::renameat2(AT_FDCWD, other.c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE);
  });
  bool unchanged = true;
  for (int i = 0; i < 2000 && unchanged; ++i) {
    const UniqueFd file(::open(other.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    const auto node = make_socket_node(path, 0660);
    struct stat info {};
    unchanged = ::fstat(file.get(), &info) == 0 && (info.st_mode & 07777) == 0600;
    ::unlink(path.c_str());
    ::unlink(other.c_str());
  }
  done = true;
  tenant.join();
  CHECK(unchanged);
}

TEST_CASE("socket node: nobody can send descriptors to it, where the kernel can refuse them") {
  const TemporaryDirectory directory;
  const auto node = make_socket_node(directory.path("tpm.sock"));
  REQUIRE(node);
  const UniqueFd client = connect_to(directory.path("tpm.sock"));
  const int fd = STDERR_FILENO;
  CHECK(send_message(client.get(), Bytes{1}, {&fd, 1}).has_value() !=
        vtpm::test::kernel_refuses_descriptors());
  CHECK(send_message(client.get(), Bytes{1}));
}

TEST_CASE("socket node: what is at the path already stays as it is") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("there");
  const auto kind = GENERATE(0, 1, 2, 3);
  UniqueFd listener;
  if (kind == 0) std::ofstream(path) << "text";
  if (kind == 1) fs::create_directory(path);
  if (kind == 2) fs::create_symlink(directory.path("elsewhere"), path);
  if (kind == 3) listener = std::move(*make_socket_node(path));
  const auto made = make_socket_node(path);
  REQUIRE_FALSE(made);
  CHECK(made.error().kind() == ErrorCode::Conflict);
  CHECK(fs::symlink_status(path).type() != fs::file_type::not_found);
  CHECK_FALSE(fs::exists(directory.path("elsewhere")));
}

TEST_CASE("socket node: a socket on which nobody listens any more is replaced") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("tpm.sock");
  { const auto dead = make_socket_node(path); }
  REQUIRE(is_socket(path));
  REQUIRE_FALSE(can_connect(path));
  const auto node = make_socket_node(path);
  REQUIRE(node);
  CHECK(can_connect(path));
}

TEST_CASE("socket node: a path that is too long for a socket is refused, and says how long it may be") {
  const TemporaryDirectory directory;
  const std::string start = directory.path() + "/";
  const std::string longest = start + std::string(107 - start.size(), 'x');
  CHECK(make_socket_node(longest));
  const auto made = make_socket_node(longest + "x");
  REQUIRE_FALSE(made);
  CHECK(made.error().kind() == ErrorCode::Malformed);
  CHECK(made.error().context.find("107 bytes, not 108") != std::string::npos);
}

TEST_CASE("socket node: a directory that is not there, and a name that is none, are errors") {
  const TemporaryDirectory directory;
  CHECK(make_socket_node(directory.path("missing/tpm")).error().kind() == ErrorCode::NotFound);
  CHECK(make_socket_node(directory.path("") + "/..").error().kind() == ErrorCode::Malformed);
}

TEST_CASE("socket node: it is removed when nobody listens any more, and nothing else is") {
  const TemporaryDirectory directory;
  const std::string path = directory.path("tpm.sock");
  auto node = make_socket_node(path);
  REQUIRE(node);
  CHECK(remove_socket_node(path).error().kind() == ErrorCode::Conflict);
  CHECK(can_connect(path));
  node->reset();
  CHECK(remove_socket_node(path));
  CHECK_FALSE(fs::exists(path));
  CHECK(remove_socket_node(path).error().kind() == ErrorCode::NotFound);
  std::ofstream(path) << "text";
  CHECK(remove_socket_node(path).error().kind() == ErrorCode::Conflict);
  CHECK(fs::exists(path));
  CHECK_FALSE(is_socket(path));
}
