// SPDX-License-Identifier: Apache-2.0
// Device nodes for tests: real FUSE mounts, served by a real engine, and what a program does with them.
#pragma once

#include "tests/support/catch_result.h"
#include "tests/support/engine.h"
#include "tests/support/skip.h"

#include <vtpm/os/mount.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cerrno>

namespace vtpm::test {

using control::NodeKind;

inline const char* missing() {
  if (::geteuid() != 0) return "a FUSE mount without user namespaces needs root";
  if (::access("/dev/fuse", R_OK | W_OK) != 0) return "no /dev/fuse here (modprobe fuse)";
  return nullptr;
}

#define REQUIRE_FUSE() \
  if (const char* reason = missing(); reason != nullptr) VTPM_SKIP(reason)

// A file that a node is mounted on, both gone at the end.
class Place {
 public:
  Place() {
    path_ = "/tmp/vtpm-node-XXXXXX";
    UniqueFd fd(::mkstemp(path_.data()));
    REQUIRE(fd);
  }
  ~Place() {
    ::umount2(path_.c_str(), MNT_DETACH);
    ::unlink(path_.c_str());
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  const std::string& path() const { return path_; }
  // Mounts here; returns the server's end.
  UniqueFd mount() {
    UniqueFd server(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    REQUIRE(server);
    const auto mounted = make_detached_mount("fuse",
                                             {{"fd", std::to_string(server.get())},
                                              {"rootmode", "100666"},
                                              {"user_id", "0"},
                                              {"group_id", "0"},
                                              {"allow_other", ""}},
                                             MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    REQUIRE(mounted);
    const UniqueFd target(::open(path_.c_str(), O_PATH | O_CLOEXEC));
    REQUIRE(move_mount_onto(mounted->get(), target.get()));
    return server;
  }

 private:
  std::string path_;
};

// An engine that serves a managed and a raw node.
struct Served {
  std::unique_ptr<ipc::Zygote> zygote = start_zygote();
  ipc::SpawnedEngine engine = std::move(*zygote->spawn());
  Place managed;
  Place raw;

  Served() {
    REQUIRE(engine.link->power_on());
    REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
    REQUIRE(engine.link->serve(NodeKind::Managed, managed.mount()));
    REQUIRE(engine.link->serve(NodeKind::Raw, raw.mount()));
  }
};

inline UniqueFd open_node(const Place& place, int flags = 0) {
  return UniqueFd(::open(place.path().c_str(), O_RDWR | O_CLOEXEC | flags));
}

// errno of a failed call, 0 otherwise.
inline int error_of(ssize_t result) {
  return result < 0 ? errno : 0;
}

inline short ready(const UniqueFd& fd) {
  pollfd p{fd.get(), POLLIN | POLLOUT, 0};
  REQUIRE(::poll(&p, 1, 0) >= 0);
  return p.revents;
}

inline ssize_t write_to(const UniqueFd& fd, BytesView bytes) {
  return ::write(fd.get(), bytes.data(), bytes.size());
}

inline Bytes read_from(const UniqueFd& fd, std::size_t most = 4096) {
  Bytes bytes(most);
  const ssize_t n = ::read(fd.get(), bytes.data(), bytes.size());
  REQUIRE(n >= 0);
  bytes.resize(static_cast<std::size_t>(n));
  return bytes;
}

inline Bytes ask(const UniqueFd& fd, BytesView bytes) {
  REQUIRE(write_to(fd, bytes) == static_cast<ssize_t>(bytes.size()));
  return read_from(fd);
}

// Runs `body` in a child process and waits for its end; returns the wait status.
template <class Body>
int in_child(Body body) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(body());
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return status;
}

}  // namespace vtpm::test
