// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/zygote_server.h"

#include "daemon/engine/engine_loop.h"
#include "daemon/engine/log.h"
#include "daemon/engine/outer_pid.h"
#include "daemon/ipc/frame.h"

#include <vtpm/os/namespaces.h>

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace vtpm::engine {
namespace {

// In the new process. The zygote's objects are still there; nothing of them is used but the filter.
[[noreturn]] void become_engine(int control, const EngineJail& jail) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (auto jailed = enter_engine_jail(jail.filter, control, jail.parts); !jailed) {
    log_line(jailed.error().context);
    ::_exit(ipc::kExitJail);
  }
  ::_exit(run_engine(UniqueFd(kControlFd)));
}

// Answers SPAWN. An error of the socket to vtpmd is returned, others are answered.
Result<> spawn(int supervisor, ipc::Transfer& request, const EngineJail& jail) {
  ipc::FrameHead head{ipc::Verb::Spawn, true, false, request.head.id, 0};
  const auto fail = [&](const Error& error) {
    head.status = static_cast<std::uint32_t>(error.kind());
    return ipc::send_transfer(supervisor, head, as_bytes(error.context));
  };
  OuterPid pid;
  const auto child = fork_process((jail.parts & ipc::kJailPidNamespaces) != 0);
  if (!child) return fail(child.error());
  if (child->pid == 0) {
    pid.adopt();
    become_engine(request.fds[0].get(), jail);
  }
  pid.tell(child->pid);
  Bytes payload;
  put_be(payload, static_cast<std::uint32_t>(child->pid));
  const int fd = child->pidfd.get();
  return ipc::send_transfer(supervisor, head, payload, {&fd, 1});
}

Result<> report_exits(int supervisor, int children) {
  signalfd_siginfo ignored;
  if (::read(children, &ignored, sizeof ignored) < 0 && errno != EAGAIN && errno != EINTR)
    return errno_error("signalfd", errno);
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    Bytes payload;
    put_be(payload, static_cast<std::uint32_t>(pid));
    put_be(payload, static_cast<std::uint32_t>(status));
    VTPM_TRY_VOID(ipc::send_transfer(supervisor, {ipc::Verb::Exited, false, false, 0, 0}, payload));
  }
  return {};
}

Result<> serve_one(int supervisor, const EngineJail& jail) {
  VTPM_TRY(ipc::Transfer request, ipc::receive_transfer(supervisor));
  if (request.head.verb != ipc::Verb::Spawn || request.head.reply)
    return Error(ErrorCode::Malformed, "the zygote was sent a frame that is not for it");
  return spawn(supervisor, request, jail);
}

}  // namespace

int run_zygote(UniqueFd control, UniqueFd children, const EngineJail& jail) {
  Bytes parts;
  put_be(parts, jail.parts);
  auto result = ipc::send_transfer(control.get(), {ipc::Verb::Ready, false, false, 0, 0}, parts);
  while (result) {
    std::array<pollfd, 2> polled = {pollfd{control.get(), POLLIN, 0}, pollfd{children.get(), POLLIN, 0}};
    if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) {
      log_line(std::string("poll: ") + std::strerror(errno));
      return ipc::kExitBug;
    }
    if (polled[1].revents != 0) result = report_exits(control.get(), children.get());
    if (result && polled[0].revents != 0) result = serve_one(control.get(), jail);
  }
  if (result.error().kind() == ErrorCode::Unreachable) return 0;
  log_line(result.error().context);
  return ipc::kExitProtocol;
}

}  // namespace vtpm::engine
