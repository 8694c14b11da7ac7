// SPDX-License-Identifier: Apache-2.0
// A swtpm process as a hardware TPM for tests, and a temporary directory.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

namespace vtpm::test {

// A new directory, removed with its content on destruction.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const noexcept { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Whether a program of that name is in PATH.
bool has_program(const std::string& name);
// Runs a program of PATH to its end, its output into `log`; its exit status, or -1.
int run_program(const std::vector<std::string>& arguments, const std::string& log);

// A running swtpm that is killed with its owner. It serves one client at a time.
class Swtpm {
 public:
  // State and sockets in `dir`; a TPM whose state is there already continues. `started`: swtpm has sent
  // Startup(CLEAR) itself. Aborts the test when it does not begin to serve.
  static std::unique_ptr<Swtpm> start(const std::string& dir, bool started = true);
  ~Swtpm() { kill(); }
  Swtpm(const Swtpm&) = delete;
  Swtpm& operator=(const Swtpm&) = delete;

  std::string tcti() const { return "swtpm:path=" + socket_; }
  // As a machine that loses power.
  void kill();
  // SIGSTOP and SIGCONT: a TPM that hangs.
  void signal(int number) const;
  // A new connection: one command to its response. Blocks while another client is connected.
  std::function<Result<Bytes>(BytesView)> connect() const;

 private:
  Swtpm(pid_t pid, std::string socket) : pid_(pid), socket_(std::move(socket)) {}
  pid_t pid_;
  std::string socket_;
};

}  // namespace vtpm::test
