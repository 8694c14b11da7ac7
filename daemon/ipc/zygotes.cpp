// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/zygotes.h"

#include <algorithm>

namespace vtpm::ipc {
namespace {

bool is_gone(ErrorCode code) noexcept {
  return code == ErrorCode::Timeout || code == ErrorCode::Malformed || code == ErrorCode::Unreachable;
}

}  // namespace

Result<std::unique_ptr<Zygotes>> Zygotes::start(std::string engine_path, int log_fd, Report report,
                                                std::size_t forks_each) {
  std::unique_ptr<Zygotes> zygotes(
      new Zygotes(std::move(engine_path), log_fd, std::move(report), forks_each));
  VTPM_TRY_VOID(zygotes->start_one());
  return zygotes;
}

Zygotes::~Zygotes() {
  if (next_.joinable()) next_.join();
}

// The lock is held, or nobody else knows this object yet.
Result<> Zygotes::start_one() {
  VTPM_TRY(auto zygote, Zygote::start(path_, log_));
  zygotes_.push_back(std::move(zygote));
  forks_ = 0;
  ++started_;
  return {};
}

// The lock is held. The new thread takes it only when the zygote is ready.
void Zygotes::start_next() {
  starting_ = true;
  if (next_.joinable()) next_.join();
  next_ = std::thread([this] {
    auto zygote = Zygote::start(path_, log_);
    const std::lock_guard lock(mutex_);
    starting_ = false;
    forks_ = 0;  // after a failure: it is tried again later
    if (!zygote) {
      report_("a new zygote does not start (" + zygote.error().context + "): the old one goes on");
      return;
    }
    zygotes_.push_back(std::move(*zygote));
    ++started_;
  });
}

// The lock is held.
std::vector<Zygotes::Shared> Zygotes::take_childless() {
  std::vector<Shared> childless;
  for (std::size_t i = zygotes_.size() - 1; i-- > 0;) {  // not the one in use
    const Shared zygote = zygotes_[i];
    const auto exits = zygote->childless();
    if (!exits) continue;
    for (const EngineExit& exit : *exits)
      if (of_.contains(exit.pid)) exits_.push_back(exit);
    while (exits_.size() > kForksPerZygote)
      exits_.pop_front();
    std::erase_if(of_, [&](const auto& one) { return one.second == zygote; });
    zygotes_.erase(zygotes_.begin() + static_cast<std::ptrdiff_t>(i));
    childless.push_back(zygote);
  }
  return childless;
}

// The lock is held.
std::optional<EngineExit> Zygotes::take_exit(pid_t pid) {
  const auto exit =
      std::find_if(exits_.begin(), exits_.end(), [pid](const EngineExit& one) { return one.pid == pid; });
  if (exit == exits_.end()) return std::nullopt;
  const EngineExit found = *exit;
  exits_.erase(exit);
  return found;
}

Result<SpawnedEngine> Zygotes::spawn() {
  Shared used;
  {
    const std::lock_guard lock(mutex_);
    used = zygotes_.back();
    if (++forks_ >= forks_each_ && !starting_) start_next();
  }
  auto spawned = used->spawn();
  if (!spawned && is_gone(spawned.error().kind())) {
    {
      const std::lock_guard lock(mutex_);
      if (zygotes_.back() == used) {  // no other thread has replaced it in the meantime
        report_("the zygote is gone (" + spawned.error().context + "): starting another");
        VTPM_TRY_VOID(start_one());
      }
      used = zygotes_.back();
    }
    spawned = used->spawn();
  }
  std::vector<Shared> childless;
  const std::lock_guard lock(mutex_);
  if (spawned) of_[spawned->pid] = used;
  childless = take_childless();
  return spawned;
}

std::optional<EngineExit> Zygotes::exit_of(pid_t pid, std::chrono::milliseconds wait) {
  Shared zygote;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = of_.find(pid); found != of_.end()) zygote = found->second;
  }
  auto exit = zygote ? zygote->exit_of(pid, wait) : std::nullopt;
  std::vector<Shared> childless;
  const std::lock_guard lock(mutex_);
  if (!exit) exit = take_exit(pid);
  of_.erase(pid);
  childless = take_childless();
  return exit;
}

std::shared_ptr<Zygote> Zygotes::newest() {
  const std::lock_guard lock(mutex_);
  return zygotes_.back();
}

std::size_t Zygotes::alive() {
  const std::lock_guard lock(mutex_);
  return zygotes_.size();
}

std::size_t Zygotes::started() {
  const std::lock_guard lock(mutex_);
  return started_;
}

}  // namespace vtpm::ipc
