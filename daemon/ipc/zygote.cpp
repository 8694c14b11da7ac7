// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_link.h"

#include <vtpm/os/process.h>

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vtpm::ipc {
namespace {

constexpr std::chrono::seconds kStartDeadline{20};  // sanitizer builds on a loaded machine start slowly
constexpr std::chrono::seconds kSpawnDeadline{10};
constexpr int kControlFd = 3;
constexpr int kFirstSpare = 64;

// In the new process, between fork and exec: async-signal-safe calls only. Ends in exec, or in exit status
// 126 with errno written to `failure`.
[[noreturn]] void become_engine(const char* path, int control, int log, int failure) {
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
    char* const arguments[] = {name, nullptr};
    char* const environment[] = {nullptr};
    ::execve(path, arguments, environment);
  }
  const int reason = errno;
  (void)!::write(failure, &reason, sizeof reason);
  ::_exit(126);
}

void reap(int pidfd) {
  siginfo_t info{};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED) != 0 &&
         errno == EINTR) {
  }
}

struct Started {
  UniqueFd pidfd;
  UniqueFd failure;  // errno of a failed exec, or nothing
};

Result<Started> fork_engine(const std::string& path, int control, int log) {
  int pipe_ends[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return errno_error("pipe2", errno);
  UniqueFd reader(pipe_ends[0]);
  const UniqueFd writer(pipe_ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork", errno);
  if (pid == 0) become_engine(path.c_str(), control, log, writer.get());
  // Not yet reaped by anyone, so the pid is still its own.
  auto pidfd = open_pidfd(pid);
  if (!pidfd) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return std::move(pidfd).error();
  }
  return Started{std::move(*pidfd), std::move(reader)};
}

}  // namespace

std::string EngineExit::describe() const {
  if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    std::string_view meaning;
    if (code == kExitProtocol) meaning = " (it was sent a frame that is not permitted)";
    if (code == kExitJail) meaning = " (it could not be jailed)";
    if (code == kExitBug) meaning = " (internal error; its log says which)";
    return "exit status " + std::to_string(code) + std::string(meaning);
  }
  if (!WIFSIGNALED(status)) return "wait status " + std::to_string(status);
  const int signal = WTERMSIG(status);
  const char* name = ::sigabbrev_np(signal);
  return "killed by signal " + std::to_string(signal) + " (SIG" + (name != nullptr ? name : "?") +
         (signal == SIGSYS ? ": forbidden system call)" : ")");
}

Result<std::unique_ptr<Zygote>> Zygote::start(const std::string& engine_path, int log_fd) {
  VTPM_TRY(SocketPair pair, make_seqpacket_pair());
  VTPM_TRY(Started started, fork_engine(engine_path, pair.second.get(), log_fd));
  pair.second.reset();
  // From here on the destructor ends and reaps the process.
  std::unique_ptr<Zygote> zygote(new Zygote(std::move(pair.first), std::move(started.pidfd)));
  int reason = 0;
  if (::read(started.failure.get(), &reason, sizeof reason) == sizeof reason)
    return Error(ErrorCode::Configuration, engine_path + ": " + std::strerror(reason));
  auto ready = receive_transfer(zygote->socket_.get(), after(kStartDeadline));
  if (!ready)
    return Error(ErrorCode::Configuration, engine_path + ": did not start (" + ready.error().context + ")");
  if (ready->head.verb != Verb::Ready || ready->head.reply)
    return Error(ErrorCode::Malformed, engine_path + ": not a vtpm-engine of this version");
  return zygote;
}

Zygote::~Zygote() {
  socket_.reset();
  // It ends on its own when its socket closes; one that does not is not worth waiting for.
  pollfd ended{pidfd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, 1000) <= 0) (void)signal_process(pidfd_.get(), SIGKILL);
  reap(pidfd_.get());
}

void Zygote::keep_exit(const Transfer& event) {
  if (event.payload.size() != 8) return;
  if (exits_.size() == kMaxExits) exits_.pop_front();
  exits_.push_back({static_cast<pid_t>(get_be<std::uint32_t>(event.payload)),
                    static_cast<int>(get_be<std::uint32_t>(event.payload, 4))});
}

Result<Transfer> Zygote::receive(Deadline deadline) {
  for (;;) {
    VTPM_TRY(Transfer transfer, receive_transfer(socket_.get(), deadline));
    if (transfer.head.reply) return transfer;
    if (transfer.head.verb != Verb::Exited) return Error(ErrorCode::Malformed, "zygote frame: not an event");
    keep_exit(transfer);
  }
}

Result<SpawnedEngine> Zygote::spawn() {
  const std::lock_guard lock(mutex_);
  VTPM_TRY(SocketPair pair, make_seqpacket_pair());
  const int fd = pair.second.get();
  const Deadline deadline = after(kSpawnDeadline);
  const FrameHead request{Verb::Spawn, false, false, ++next_id_, 0};
  VTPM_TRY_VOID(send_transfer(socket_.get(), request, {}, {&fd, 1}, deadline));
  VTPM_TRY(Transfer reply, receive(deadline));
  if (reply.head.verb != Verb::Spawn || reply.head.id != request.id)
    return Error(ErrorCode::Malformed, "zygote frame: not the reply to the request");
  if (reply.head.status != 0) return error_from_reply(reply.head.status, reply.payload);
  if (reply.payload.size() != 4) return Error(ErrorCode::Malformed, "zygote frame: no pid");
  const auto pid = static_cast<pid_t>(get_be<std::uint32_t>(reply.payload));
  return SpawnedEngine{std::make_unique<EngineLink>(std::move(pair.first)), std::move(reply.fds[0]), pid};
}

std::optional<EngineExit> Zygote::exit_of(pid_t pid, std::chrono::milliseconds wait) {
  const std::lock_guard lock(mutex_);
  const Deadline deadline = after(wait);
  for (;;) {
    const auto exit =
        std::find_if(exits_.begin(), exits_.end(), [pid](const EngineExit& e) { return e.pid == pid; });
    if (exit != exits_.end()) {
      const EngineExit found = *exit;
      exits_.erase(exit);
      return found;
    }
    auto event = receive_transfer(socket_.get(), deadline);
    if (!event || event->head.verb != Verb::Exited) return std::nullopt;
    keep_exit(*event);
  }
}

}  // namespace vtpm::ipc
