// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_program.h"

#include <vtpm/os/process.h>

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vtpm::ipc {
namespace {

constexpr int kControlFd = 3;
constexpr int kFirstSpare = 64;

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe2", errno);
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// In the new process, between fork and exec: async-signal-safe calls only. Ends in exec, or in exit status
// 126 with errno written to `failure`. `role`: nullptr for the zygote.
[[noreturn]] void become_engine(const char* path, const char* role, int control, int log, int failure) {
  // Out of the way of 0-3 first: any of them may be one of these.
  control = ::fcntl(control, F_DUPFD_CLOEXEC, kFirstSpare);
  log = ::fcntl(log, F_DUPFD_CLOEXEC, kFirstSpare);
  failure = ::fcntl(failure, F_DUPFD_CLOEXEC, kFirstSpare);
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const int spare = ::fcntl(null, F_DUPFD_CLOEXEC, kFirstSpare);
  const bool placed = ::dup2(spare, 0) == 0 && ::dup2(spare, 1) == 1 && ::dup2(log, 2) == 2 &&
                      ::dup2(control, kControlFd) == kControlFd;
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (placed && ::syscall(SYS_close_range, kControlFd + 1, ~0U, CLOSE_RANGE_CLOEXEC) == 0) {
    char name[] = "vtpm-engine";
    char* const arguments[] = {name, const_cast<char*>(role), nullptr};
    char* const environment[] = {nullptr};
    ::execve(path, arguments, environment);
  }
  const int reason = errno;
  (void)!::write(failure, &reason, sizeof reason);
  ::_exit(126);
}

// What become_engine() has written, after the exec or the end of its process.
Result<> outcome(const std::string& path, Pipe& failure) {
  failure.writer.reset();
  int reason = 0;
  if (::read(failure.reader.get(), &reason, sizeof reason) != sizeof reason) return {};
  return Error(ErrorCode::Configuration, path + ": " + std::strerror(reason));
}

}  // namespace

Result<UniqueFd> execute_zygote(const std::string& path, int control, int log) {
  VTPM_TRY(Pipe failure, make_pipe());
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork", errno);
  if (pid == 0) become_engine(path.c_str(), nullptr, control, log, failure.writer.get());
  // Not yet reaped by anyone, so the pid is still its own.
  auto pidfd = open_pidfd(pid);
  Result<> executed = pidfd ? outcome(path, failure) : Result<>(pidfd.error());
  if (executed) return pidfd;
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  return executed.error();
}

Result<> execute_keeper(const std::string& path, int listener, int log) {
  VTPM_TRY(Pipe failure, make_pipe());
  const pid_t between = ::fork();
  if (between < 0) return errno_error("fork", errno);
  if (between == 0) {
    const pid_t keeper = ::setsid() < 0 ? -1 : ::fork();
    if (keeper == 0) become_engine(path.c_str(), "keeper", listener, log, failure.writer.get());
    const int reason = errno;
    if (keeper < 0) (void)!::write(failure.writer.get(), &reason, sizeof reason);
    ::_exit(0);
  }
  while (::waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
  }
  return outcome(path, failure);
}

}  // namespace vtpm::ipc
