// SPDX-License-Identifier: Apache-2.0
// A real keeper, ended with its owner, and engines for it.
#pragma once

#include "daemon/ipc/keeper_link.h"
#include "tests/support/catch_result.h"
#include "tests/support/engine.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/file.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>

namespace vtpm::test {

inline bool readable(int fd, int milliseconds = 10'000) {
  pollfd p{fd, POLLIN, 0};
  return ::poll(&p, 1, milliseconds) == 1;
}

// Where a keeper listens, as vtpmd makes it.
inline UniqueFd listen_at(const std::string& path) {
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener.get(), 8) == 0);
  return listener;
}

// Whether somebody has its writing end is to be seen at the other.
struct Pipe {
  Pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  bool ended() const { return readable(reader.get()); }
  bool held() const { return !readable(reader.get(), 0); }
  UniqueFd reader;
  UniqueFd writer;
};

// The keeper among this process's children: nobody else's, once this process is the reaper of orphans.
inline pid_t find_keeper() {
  const std::string parent = "\nPPid:\t" + std::to_string(::getpid()) + "\n";
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const auto status = read_file(entry.path() / "status", 65536);
    const auto line = read_file(entry.path() / "cmdline", 4096);
    if (status && line && as_text(*status).find(parent) != std::string_view::npos &&
        as_text(*line) == std::string_view("vtpm-engine\0keeper\0", 19))
      return static_cast<pid_t>(std::stol(entry.path().filename()));
  }
  return 0;
}

class KeeperProcess {
 public:
  KeeperProcess() {
    path_ = directory_.path("keeper.sock");
    listener_ = listen_at(path_);
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    auto started = ipc::KeeperLink::start(std::string(VTPM_BIN_DIR) + "/vtpm-engine", listener_, path_, 2);
    INFO((started ? "" : started.error().context));
    REQUIRE(started);
    link_.emplace(std::move(*started));
    REQUIRE(link_->recall());  // it serves
    listener_.reset();
    pid_ = find_keeper();
    REQUIRE(pid_ > 0);
  }
  ~KeeperProcess() {
    if (pid_ > 0) (void)end(SIGKILL);
  }
  KeeperProcess(const KeeperProcess&) = delete;
  KeeperProcess& operator=(const KeeperProcess&) = delete;

  ipc::KeeperLink& link() { return *link_; }
  // As a vtpmd that dies.
  void leave() { link_.reset(); }
  // As the next one.
  ipc::KeeperLink& join() {
    auto joined = ipc::KeeperLink::connect(path_);
    REQUIRE(joined);
    link_.emplace(std::move(*joined));
    return *link_;
  }
  const std::string& path() const { return path_; }
  pid_t pid() const { return pid_; }
  // Its wait status, after its end; with a signal (0: none) that it is sent first.
  int end(int signal = 0) {
    if (signal != 0) ::kill(pid_, signal);
    int status = -1;
    ::waitpid(std::exchange(pid_, 0), &status, 0);
    return status;
  }
  bool lives() const { return ::waitpid(pid_, nullptr, WNOHANG) == 0; }

 private:
  TemporaryDirectory directory_;
  std::string path_;
  UniqueFd listener_;
  std::optional<ipc::KeeperLink> link_;
  pid_t pid_ = 0;
};

}  // namespace vtpm::test
