// SPDX-License-Identifier: Apache-2.0
// A real vtpmd for tests: an ordinary user's when the test is root, ended with its owner.
#pragma once

#include "tests/support/swtpm.h"

#include <vtpm/control/http_client.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vtpm::test {

// The directories of one vtpmd, which may be started in them again.
struct Place {
  Place();
  // Without a vtpmd, what the last one left to the keeper ends, too.
  ~Place() { end_keeper(); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  std::string state() const { return directory / "state"; }
  std::string runtime() const { return directory / "run"; }
  std::string programs() const { return directory / "bin"; }  // vtpmd and vtpm-engine
  std::string log() const;                                    // what all daemons here wrote
  // Makes the keeper let go of everything, as the daemon's user: it ends, and the engines do. No vtpmd runs.
  void end_keeper() const;
  // Whether one answers.
  bool has_keeper() const;
  TempDir directory;
  std::optional<std::size_t> descriptors = {};  // as many as its vtpmds may have, soft and hard limit
};

class Daemon {
 public:
  // Waits for READY=1, or for the end of a daemon that refuses to start.
  static std::unique_ptr<Daemon> start(const Place& place, const std::string& anchor = "embedded",
                                       const std::vector<std::string>& more = {});
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  bool ready() const noexcept { return ready_; }
  pid_t pid() const noexcept { return pid_; }
  // The number of its open descriptors; the test is root or the same user.
  std::size_t descriptors() const;
  control::HttpClient client() const { return control::HttpClient(runtime_); }
  // Sends a signal (0: none) and waits for the end; the wait(2) status.
  int stop(int signal);

 private:
  Daemon(pid_t pid, std::string runtime) : pid_(pid), runtime_(std::move(runtime)) {}
  pid_t pid_;
  std::string runtime_;
  bool ready_ = false;
  bool ended_ = false;
};

// The user that the daemon of a test runs as.
uid_t daemon_uid();
// Runs `work` in a child process as another user (uid and gid, no groups); what it returned. Needs root.
int as_user(uid_t uid, const std::function<int()>& work);
// Tries until `done` says so, or 10 s have passed.
bool eventually(const std::function<bool()>& done);

}  // namespace vtpm::test
