// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_link.h"
#include "daemon/ipc/engine_program.h"
#include "daemon/ipc/passed.h"

#include <vtpm/os/process.h>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vtpm::ipc {
namespace {

void reap(int pidfd) {
  siginfo_t info{};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED) != 0 &&
         errno == EINTR) {
  }
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

Result<std::unique_ptr<Zygote>> Zygote::start(const std::string& engine_path, int log_fd,
                                              std::chrono::milliseconds patience) {
  VTPM_TRY(SocketPair pair, make_seqpacket_pair());
  VTPM_TRY(UniqueFd pidfd, execute_zygote(engine_path, pair.second.get(), log_fd));
  pair.second.reset();
  // From here on the destructor ends and reaps the process.
  std::unique_ptr<Zygote> zygote(new Zygote(std::move(pair.first), std::move(pidfd)));
  auto ready = receive_transfer(zygote->socket_.get(), after(patience));
  if (!ready)
    return Error(ErrorCode::Configuration, engine_path + ": did not start (" + ready.error().context + ")");
  if (ready->head.verb != Verb::Ready || ready->head.reply || ready->payload.size() != 4)
    return Error(ErrorCode::Malformed, engine_path + ": not a vtpm-engine of this version");
  zygote->jail_ = get_be<std::uint32_t>(ready->payload);
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
  if (engines_ > 0) --engines_;
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
    if (passed(deadline)) return Error(ErrorCode::Timeout, "the zygote sends, but not the answer");
  }
}

Result<SpawnedEngine> Zygote::spawn(std::chrono::milliseconds patience) {
  const std::lock_guard lock(mutex_);
  VTPM_TRY(SocketPair pair, make_seqpacket_pair());
  const int fd = pair.second.get();
  const Deadline deadline = after(patience);
  const FrameHead request{Verb::Spawn, false, false, ++next_id_, 0};
  VTPM_TRY_VOID(send_transfer(socket_.get(), request, {}, {&fd, 1}, deadline));
  VTPM_TRY(Transfer reply, receive(deadline));
  if (reply.head.verb != Verb::Spawn || reply.head.id != request.id)
    return Error(ErrorCode::Malformed, "zygote frame: not the reply to the request");
  if (reply.head.status != 0) return error_from_reply(reply.head.status, reply.payload);
  if (reply.payload.size() != 4) return Error(ErrorCode::Malformed, "zygote frame: no pid");
  const auto pid = static_cast<pid_t>(get_be<std::uint32_t>(reply.payload));
  ++engines_;
  return SpawnedEngine{std::make_unique<EngineLink>(std::move(pair.first)), std::move(reply.fds[0]), pid};
}

std::optional<EngineExit> Zygote::exit_of(pid_t pid, std::chrono::milliseconds wait) {
  const std::lock_guard lock(mutex_);
  const Deadline deadline = after(wait);
  for (bool late = false;;) {
    const auto exit =
        std::find_if(exits_.begin(), exits_.end(), [pid](const EngineExit& e) { return e.pid == pid; });
    if (exit != exits_.end()) {
      const EngineExit found = *exit;
      exits_.erase(exit);
      return found;
    }
    if (late) return std::nullopt;
    auto event = receive_transfer(socket_.get(), deadline);
    if (!event || event->head.verb != Verb::Exited) return std::nullopt;
    keep_exit(*event);
    late = passed(deadline);
  }
}

std::optional<std::deque<EngineExit>> Zygote::childless() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return std::nullopt;
  for (std::size_t events = 0;; ++events) {
    if (events > kMaxExits) return std::nullopt;  // more than it can have had
    const auto event = receive_transfer(socket_.get(), after(std::chrono::milliseconds(0)));
    if (!event && event.error().kind() != ErrorCode::Timeout) return std::move(exits_);  // it is gone itself
    if (!event) break;
    if (event->head.verb == Verb::Exited) keep_exit(*event);
  }
  if (engines_ > 0) return std::nullopt;
  return std::move(exits_);
}

}  // namespace vtpm::ipc
