// SPDX-License-Identifier: Apache-2.0
// Real FUSE mounts, each test in a mount namespace that ends with its process. Nobody serves them: nothing
// here may ask the FUSE server.
#include "tests/support/catch_result.h"
#include "tests/support/skip.h"

#include <vtpm/device/fuse_node.h>
#include <vtpm/os/mount.h>
#include <vtpm/os/process.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace vtpm;
using namespace vtpm::device;
namespace fs = std::filesystem;

namespace {

bool can_mount() {
  return ::geteuid() == 0 && make_fuse_node().has_value();
}

// Runs `body` in a child with a private mount namespace and tmpfs on /tmp; true if it returned true.
template <class Body>
bool in_mount_namespace(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const bool ready = ::unshare(CLONE_NEWNS) == 0 &&
                       ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                       ::mount("none", "/tmp", "tmpfs", 0, nullptr) == 0;
    ::_exit(ready && body() ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool is_mounted(const std::string& path) {
  std::ifstream info("/proc/self/mountinfo");
  for (std::string line; std::getline(info, line);)
    if (line.find(" " + path + " ") != std::string::npos && line.find(" - fuse vtpm ") != std::string::npos)
      return true;
  return false;
}

ErrorCode code_of(const Result<>& result) {
  return result ? ErrorCode{} : result.error().kind();
}

}  // namespace

TEST_CASE("fuse node: placed at a free path, removed without a trace") {
  if (!can_mount()) VTPM_SKIP("making FUSE mounts needs root and /dev/fuse");
  CHECK(in_mount_namespace([] {
    const auto node = make_fuse_node();
    return node && place(node->mount, "/tmp/node") && is_mounted("/tmp/node") && remove_node("/tmp/node") &&
           !is_mounted("/tmp/node") && !fs::exists("/tmp/node");
  }));
}

TEST_CASE("fuse node: the mount allows no devices, set-uid programs or execution") {
  if (!can_mount()) VTPM_SKIP("making FUSE mounts needs root and /dev/fuse");
  CHECK(in_mount_namespace([] {
    const auto node = make_fuse_node();
    if (!node || !place(node->mount, "/tmp/node")) return false;
    std::ifstream info("/proc/self/mountinfo");
    for (std::string line; std::getline(info, line);)
      if (line.find(" /tmp/node ") != std::string::npos)
        return line.find("nosuid,nodev,noexec") != std::string::npos &&
               line.find("allow_other") != std::string::npos;
    return false;
  }));
}

TEST_CASE("fuse node: what is in the way is kept, and named as a conflict") {
  if (!can_mount()) VTPM_SKIP("making FUSE mounts needs root and /dev/fuse");
  CHECK(in_mount_namespace([] {
    std::ofstream("/tmp/full") << "x";
    const auto node = make_fuse_node();
    return node && code_of(place(node->mount, "/tmp/full")) == ErrorCode::Conflict &&
           fs::file_size("/tmp/full") == 1;
  }));
  CHECK(in_mount_namespace([] {
    const auto first = make_fuse_node();
    const auto second = make_fuse_node();
    return first && second && place(first->mount, "/tmp/node") &&
           code_of(place(second->mount, "/tmp/node")) == ErrorCode::Conflict;
  }));
}

TEST_CASE("fuse node: only our own mounts are removed") {
  if (!can_mount()) VTPM_SKIP("making FUSE mounts needs root and /dev/fuse");
  CHECK(in_mount_namespace([] {
    std::ofstream("/tmp/file") << "x";
    std::ofstream target("/tmp/target");
    return code_of(remove_node("/tmp/file")) == ErrorCode::Conflict &&
           ::mount("/tmp/file", "/tmp/target", nullptr, MS_BIND, nullptr) == 0 &&
           code_of(remove_node("/tmp/target")) == ErrorCode::Conflict &&
           code_of(remove_node("/tmp/missing")) == ErrorCode::NotFound;
  }));
}

TEST_CASE("fuse node: placed in another process' mount namespace, under all its names, and not in ours") {
  if (!can_mount()) VTPM_SKIP("making FUSE mounts needs root and /dev/fuse");
  // The "container": a child in its own mount namespace with a root file system at /tmp/root.
  int ready[2];
  int end[2];
  REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
  REQUIRE(::pipe2(end, O_CLOEXEC) == 0);
  const pid_t container = ::fork();
  if (container == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::close(end[1]);
    const bool made =
        ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("none", "/tmp", "tmpfs", 0, nullptr) == 0 && fs::create_directories("/tmp/root/dev");
    char byte = made ? 'y' : 'n';
    static_cast<void>(!::write(ready[1], &byte, 1));
    static_cast<void>(!::read(end[0], &byte, 1));
    const bool placed = is_mounted("/tmp/root/dev/vtpm") && is_mounted("/tmp/root/dev/tpmrm0");
    ::_exit(placed ? 0 : 1);
  }
  char byte = 'n';
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  REQUIRE(byte == 'y');
  const pid_t hook = ::fork();
  if (hook == 0) {
    const auto node = make_fuse_node();
    const auto pidfd = open_pidfd(container);
    const bool placed =
        node && pidfd &&
        place_in_container(pidfd->get(), "/tmp/root",
                           {{"/dev/vtpm", &node->mount}, {"/dev/tpmrm0", &node->mount}}) &&
        code_of(place_in_container(pidfd->get(), "/tmp/root", {{"/dev/vtpm", &node->mount}})) ==
            ErrorCode::Conflict &&
        code_of(place_in_container(pidfd->get(), "/tmp/root", {{"/missing/vtpm", &node->mount}})) ==
            ErrorCode::NotFound;
    ::_exit(placed ? 0 : 1);
  }
  int status = 1;
  ::waitpid(hook, &status, 0);
  CHECK(status == 0);
  CHECK_FALSE(is_mounted("/tmp/root/dev/vtpm"));
  static_cast<void>(!::write(end[1], "x", 1));
  ::waitpid(container, &status, 0);
  CHECK(status == 0);
  for (const int fd : {ready[0], ready[1], end[0], end[1]})
    ::close(fd);
}
