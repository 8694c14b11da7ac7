// SPDX-License-Identifier: Apache-2.0
// vtpm-engine: started by vtpmd as the zygote, with its control socket as descriptor 3 and its log as
// standard error; or, with the argument "keeper", as the keeper, descriptor 3 being its listening socket.
// Exit statuses: daemon/ipc/frame.h.
#include "daemon/engine/fatal.h"
#include "daemon/engine/jail.h"
#include "daemon/engine/keeper.h"
#include "daemon/engine/long_command.h"
#include "daemon/engine/preload.h"
#include "daemon/engine/zygote_server.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <exception>
#include <string_view>

namespace {

using namespace vtpm;
using namespace vtpm::engine;

bool is_seqpacket(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

// Their life is their control sockets': a ^C at vtpmd's terminal reaches them, too, but vtpmd decides.
void ignore_signals() {
  for (const int signal : {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGXFSZ})
    ::signal(signal, SIG_IGN);
}

Result<UniqueFd> watch_children() {
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &children, nullptr) != 0) return errno_error("sigprocmask", errno);
  UniqueFd fd(::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return errno_error("signalfd", errno);
  return fd;
}

Result<int> run() {
  ignore_signals();
  VTPM_TRY_VOID(LongCommand::install_handler());
  VTPM_TRY_VOID(preload_crypto());
  VTPM_TRY(UniqueFd children, watch_children());
  VTPM_TRY(const SyscallFilter engine_filter, SyscallFilter::compile(Role::Engine));
  VTPM_TRY(const SyscallFilter zygote_filter, SyscallFilter::compile(Role::Zygote));
  VTPM_TRY(const JailParts parts, enter_zygote_jail(zygote_filter));
  return run_zygote(UniqueFd(kControlFd), std::move(children), {engine_filter, parts});
}

// SIGTERM ends it, and with it the engines, in order: an operator's way where no vtpmd comes back.
Result<int> keep() {
  ignore_signals();
  ::signal(SIGTERM, SIG_DFL);
  // Again: from now on SO_PEERCRED names this process to who connects, not the vtpmd that made the socket.
  if (::listen(kControlFd, SOMAXCONN) != 0) return errno_error("listen", errno);
  VTPM_TRY(const SyscallFilter filter, SyscallFilter::compile(Role::Keeper));
  VTPM_TRY(const std::size_t descriptors, enter_keeper_jail(filter));
  return run_keeper(UniqueFd(kControlFd), descriptors);
}

}  // namespace

#ifdef __SANITIZE_ADDRESS__
// The leak check traces its own process, which the jail forbids. (The run time looks for this name.)
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0";
}
#endif

int main(int argc, char** argv) {
  std::set_terminate([] { fatal("an exception"); });
  if (!is_seqpacket(kControlFd)) {
    log_line("this program is started by vtpmd, with a socket as descriptor 3");
    return ipc::kExitUsage;
  }
  const bool keeper = argc == 2 && std::string_view(argv[1]) == "keeper";
  const auto status = keeper ? keep() : run();
  if (status) return *status;
  log_line(status.error().context);
  return ipc::kExitJail;
}
