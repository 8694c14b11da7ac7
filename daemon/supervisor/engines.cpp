// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/engines.h"

#include "daemon/supervisor/logging.h"

#include <vtpm/os/process.h>

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kConversation = 5s;    // in total, with an engine that tenants use
constexpr auto kEndDeadline = 2s;     // from the loss of its socket to an engine's exit
constexpr auto kStatusDeadline = 1s;  // for the zygote to tell an exit status

bool wait_for_end(int pidfd, std::chrono::milliseconds limit) {
  pollfd p{pidfd, POLLIN, 0};
  return ::poll(&p, 1, static_cast<int>(limit.count())) > 0;
}

// An instance takes several descriptors, and the usual soft limit is 1024.
void raise_descriptor_limit() {
  rlimit limit{};
  bool raised = ::getrlimit(RLIMIT_NOFILE, &limit) == 0;
  limit.rlim_cur = limit.rlim_max;
  raised = raised && ::setrlimit(RLIMIT_NOFILE, &limit) == 0;
  if (!raised)
    log_line(LogLevel::Warning,
             std::string("the limit of descriptors cannot be raised: ") + std::strerror(errno));
}

}  // namespace

void Engine::kill() noexcept {
  // An engine of our own that cannot be signalled has ended.
  [[maybe_unused]] const auto sent = signal_process(pidfd.get(), SIGKILL);
}

void Engine::begin_conversation() {
  link->set_deadline(after(kConversation));
}

bool is_fatal_to_engine(ErrorCode code) noexcept {
  return code == ErrorCode::Timeout || code == ErrorCode::Malformed || code == ErrorCode::Unreachable;
}

Result<std::unique_ptr<Engines>> Engines::start(const std::string& engine_path) {
  raise_descriptor_limit();
  std::unique_ptr<Engines> engines(new Engines(engine_path));
  VTPM_TRY_VOID(engines->start_zygote());
  return engines;
}

Result<> Engines::start_zygote() {
  VTPM_TRY(auto zygote, ipc::Zygote::start(path_, STDERR_FILENO));
  zygotes_.push_back(std::move(zygote));
  return {};
}

ipc::Zygote& Engines::zygote() {
  const std::lock_guard lock(mutex_);
  return *zygotes_.back();
}

Result<ipc::SpawnedEngine> Engines::spawn() {
  ipc::Zygote& used = zygote();
  auto spawned = used.spawn();
  if (spawned || !is_fatal_to_engine(spawned.error().kind())) return spawned;
  const std::lock_guard lock(mutex_);
  if (zygotes_.back().get() == &used) {  // no other worker has replaced it in the meantime
    log_line(LogLevel::Warning, "the zygote is gone (" + spawned.error().context + "): starting another");
    VTPM_TRY_VOID(start_zygote());
  }
  return zygotes_.back()->spawn();
}

Result<Manufactured> Engines::manufacture(const std::string& launch_document) {
  VTPM_TRY(ipc::SpawnedEngine spawned, spawn());
  auto engine =
      std::make_shared<Engine>(Engine{std::move(spawned.link), std::move(spawned.pidfd), spawned.pid});
  auto powered = engine->link->power_on();
  if (!powered) {
    engine->kill();
    return powered.error().within("power-on of a new TPM");
  }
  auto identity = identity::provision(*engine->link, launch_document);
  if (!identity) {
    engine->kill();
    return identity.error().within("provisioning of a new TPM");
  }
  return Manufactured{std::move(engine), std::move(*identity)};
}

Result<> Engines::retire(Engine& engine) {
  engine.begin_conversation();
  Result<> orderly = engine.link->shutdown();
  engine.link.reset();
  // One that did not answer in time will not end by itself either.
  const bool stuck = !orderly && orderly.error().kind() == ErrorCode::Timeout;
  if (stuck || !wait_for_end(engine.pidfd.get(), kEndDeadline)) {
    engine.kill();
    if (orderly) orderly = Error(ErrorCode::Timeout, "the engine did not end and was killed");
  }
  how_it_ended(engine.pid);  // lets the zygote forget it
  return orderly;
}

void Engines::took_over(pid_t pid) {
  const std::lock_guard lock(mutex_);
  taken_over_.insert(pid);
}

std::string Engines::how_it_ended(pid_t pid) {
  {
    const std::lock_guard lock(mutex_);
    if (taken_over_.erase(pid) > 0) return "its exit status is unknown";
  }
  const auto end = zygote().exit_of(pid, kStatusDeadline);
  return end ? end->describe() : "its exit status is unknown";
}

}  // namespace vtpm::supervisor
