// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/long_command.h"

#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <cerrno>

namespace vtpm::engine {
namespace {

constexpr suseconds_t kTick = 2000;  // us

// What the handler works with. Lock-free atomics: it runs in the thread that sets them.
std::atomic<LongCommand::Look> g_look{nullptr};
std::atomic<void*> g_context{nullptr};
std::atomic<bool> g_cancelled{false};
static_assert(decltype(g_look)::is_always_lock_free && decltype(g_context)::is_always_lock_free);

void on_tick(int) {
  const auto look = g_look.load();
  if (look == nullptr) return;  // the tick came after the command's end
  const int saved = errno;
  if (look(g_context.load())) g_cancelled = true;
  // Again at each tick: libtpms forgets it at the start of the command if that came later.
  if (g_cancelled) Tpm::cancel();
  errno = saved;
}

// TPM2_CreatePrimary, TPM2_Create, TPM2_CreateLoaded.
bool may_be_long(BytesView command) {
  const auto code = get_be<std::uint32_t>(command, 6);
  return code == 0x131 || code == 0x153 || code == 0x191;
}

void set_timer(suseconds_t interval) {
  const itimerval timer{{0, interval}, {0, interval}};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}

}  // namespace

LongCommand::LongCommand(BytesView command, Look look, void* context) : armed_(may_be_long(command)) {
  if (!armed_) return;
  g_cancelled = false;
  g_context = context;
  g_look = look;
  set_timer(kTick);
}

LongCommand::~LongCommand() {
  if (!armed_) return;
  set_timer(0);
  g_look = nullptr;
}

Result<> LongCommand::install_handler() {
  struct sigaction action {};
  action.sa_handler = on_tick;
  // What libtpms, OpenSSL and the engine wait for goes on: getrandom, the commit of durable state, the log.
  action.sa_flags = SA_RESTART;
  if (::sigaction(SIGALRM, &action, nullptr) != 0) return errno_error("sigaction", errno);
  return {};
}

}  // namespace vtpm::engine
