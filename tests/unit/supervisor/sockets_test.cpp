// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/sockets.h"

#include "tests/support/catch_result.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

struct Directory {
  Directory() {
    char pattern[] = "/tmp/vtpm-sockets-XXXXXX";
    path = ::mkdtemp(pattern);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

TEST_CASE("directories: a second claim is refused, and possible again after the first is gone") {
  const Directory parent;
  const std::string path = parent.path + "/run";
  {
    const auto first = claim_directory(path, 0755);
    REQUIRE(first);
    const auto second = claim_directory(path, 0755);
    REQUIRE_FALSE(second);
    CHECK(second.error().kind() == ErrorCode::Conflict);
    CHECK(second.error().context.find(path) != std::string::npos);
  }
  CHECK(claim_directory(path, 0755));
}

TEST_CASE("sockets: a stale socket is replaced, and the mode is as asked") {
  const Directory directory;
  const SocketSpec spec{directory.path + "/s.sock", SOCK_SEQPACKET, 0620, std::nullopt};
  REQUIRE(listen_at(spec));
  const auto again = listen_at(spec);
  REQUIRE(again);
  struct stat info {};
  REQUIRE(::stat(spec.path.c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0620);
  CHECK((::fcntl(again->get(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("sockets: until the mode and the group are right nobody may connect, whatever the umask") {
  const Directory directory;
  REQUIRE(::chmod(directory.path.c_str(), 0777) == 0);
  const SocketSpec spec{directory.path + "/s.sock", SOCK_STREAM, 0666, 0};  // a group that is not its own
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::umask(0);
    const bool other =
        ::geteuid() != 0 || (::setgroups(0, nullptr) == 0 && ::setgid(65534) == 0 && ::setuid(65534) == 0);
    ::_exit(other && !listen_at(spec) ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  struct stat info {};
  REQUIRE(::stat(spec.path.c_str(), &info) == 0);  // as bind(2) made it
  CHECK((info.st_mode & 07777) == 0);
}

TEST_CASE("sockets: a file that another thread makes meanwhile has its own mode") {
  const Directory directory;
  const SocketSpec spec{directory.path + "/s.sock", SOCK_STREAM, 0600, std::nullopt};
  std::atomic<bool> done{false};
  std::thread listens([&] {
    while (!done)
      REQUIRE(listen_at(spec));
  });
  int wrong = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string path = directory.path + "/file";
    const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    struct stat info {};
    if (::fstat(file.get(), &info) != 0 || (info.st_mode & 07777) != 0600) ++wrong;
    ::unlink(path.c_str());
  }
  done = true;
  listens.join();
  CHECK(wrong == 0);
}

TEST_CASE("sockets: what is not a socket is not removed") {
  const Directory directory;
  const std::string path = directory.path + "/s.sock";
  { const UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); }
  const SocketSpec spec{path, SOCK_STREAM, 0600, std::nullopt};
  CHECK(listen_at(spec).error().kind() == ErrorCode::Configuration);
  CHECK(std::filesystem::exists(path));
}

TEST_CASE("sockets: a path that is too long is refused by name") {
  const SocketSpec spec{"/tmp/" + std::string(120, 'x'), SOCK_STREAM, 0600, std::nullopt};
  CHECK_FALSE(listen_at(spec));
}
