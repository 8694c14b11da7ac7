// SPDX-License-Identifier: Apache-2.0
// How an instance ends: its engine died, it is destroyed, its container ended, vtpmd stops.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/supervision.h"

#include <algorithm>

namespace vtpm::supervisor {

asio::awaitable<void> Instances::engine_died(std::string id, pid_t pid) {
  Instance* instance = registry_.find(id);
  auto* state = instance == nullptr ? nullptr : std::get_if<Running>(&instance->state);
  if (state == nullptr || state->made.engine_pid != pid) co_return;
  if (instance->row.durable) {
    co_await reset(std::move(id), pid);
    co_return;
  }
  const auto supervision = state->supervision;
  supervision->stop_watching_engine();  // the container's end is waited for: the instance goes with it
  Provisioned made = std::move(state->made);
  instance->state = Failed{std::move(made), "the engine ended", true, supervision};
  ++counters_.failed;
  const auto turn = co_await supervision->turn.acquire();  // end_failed waits until this is logged

  co_await let_go(id);
  const auto ask = [this, pid] { return engines_.how_it_ended(pid); };
  const std::string how = co_await run_on(workers_.endings, ask);
  const log::InstanceDestroy entry{now_ms(), id, "engine-died"};
  const auto end = [this, entry] { return store_.end_instance(entry, "failed"); };
  const auto logged = co_await run_on(workers_.store, end);
  log_line(LogLevel::Error,
           "instance " + id + ": its engine (pid " + std::to_string(pid) + ") ended: " + how);
  if (!logged) log_line(LogLevel::Error, "instance " + id + ": not logged: " + logged.error().context);
  instance = registry_.find(id);
  auto* failed = instance == nullptr ? nullptr : std::get_if<Failed>(&instance->state);
  if (failed == nullptr) co_return;
  failed->reason = "the engine ended: " + how;
  failed->logged = logged.has_value();
  publish("instance.failed", *instance, failed->reason);
}

Task<> Instances::end(std::string id, std::string reason) {
  VTPM_CO_TRY_VOID(co_await settle_to_end(id));
  Instance* instance = registry_.find(id);
  if (instance == nullptr || !instance->row.durable)
    co_return co_await destroy(std::move(id), std::move(reason));
  if (std::holds_alternative<Running>(instance->state))
    co_return co_await stop_running(std::move(id), std::move(reason));
  co_return Result<>();  // it has stopped or failed already
}

Task<> Instances::destroy(std::string id, std::string reason) {
  VTPM_CO_TRY_VOID(co_await settle_to_end(id));
  Instance* instance = registry_.find(id);
  const bool stored = instance != nullptr && instance->row.durable;
  if (stored &&
      (std::holds_alternative<Stopped>(instance->state) || std::holds_alternative<Failed>(instance->state)))
    co_return co_await destroy_stored(std::move(id), std::move(reason));
  if (instance != nullptr && std::holds_alternative<Running>(instance->state))
    co_return co_await end_running(std::move(id), std::move(reason));
  if (instance != nullptr && std::holds_alternative<Failed>(instance->state))
    co_return co_await end_failed(std::move(id), std::move(reason));
  co_return Error(ErrorCode::NotFound, "no instance " + id);
}

Task<> Instances::end_running(std::string id, std::string reason) {
  Instance* instance = registry_.find(id);
  const auto supervision = std::get<Running>(instance->state).supervision;
  Provisioned made = std::move(std::get<Running>(instance->state).made);
  instance->state = Destroying{std::move(made)};
  supervision->stop_watching_engine();
  const auto turn = co_await supervision->turn.acquire();
  co_await let_go(id);
  const auto retire = [this, engine = supervision->engine] { return engines_.retire(*engine); };
  const auto orderly = co_await end_engine(workers_, engines_, supervision->engine, retire);
  // One in the cgroup of a container that has ended was killed (watch_container).
  if (!orderly && !supervision->engine->placed)
    log_line(LogLevel::Warning, "instance " + id + ": no orderly end: " + orderly.error().context);

  const log::InstanceDestroy entry{now_ms(), id, reason};
  const auto end = [this, entry] { return store_.end_instance(entry, "destroyed"); };
  const auto logged = co_await run_on(workers_.store, end);
  if (logged) {
    supervision->stop_watching();
    if (registry_.find(id)->row.durable) co_await remove_files(id);
    removed(id, reason);
    co_return Result<>();
  }
  instance = registry_.find(id);
  made = std::move(std::get<Destroying>(instance->state).made);
  become(id,
         Failed{std::move(made), "destroyed, but not logged: " + logged.error().context, false, supervision});
  co_return logged.error();
}

Task<> Instances::end_failed(std::string id, std::string reason) {
  const auto supervision = std::get<Failed>(registry_.find(id)->state).supervision;
  std::optional<AsyncLock::Guard> turn;
  if (supervision) turn.emplace(co_await supervision->turn.acquire());
  Instance* instance = registry_.find(id);
  if (instance == nullptr) co_return Result<>();  // somebody else has ended it
  const bool logged = std::get<Failed>(instance->state).logged;
  const log::InstanceDestroy entry{now_ms(), id, reason};
  const auto forget = [this, entry, logged]() -> Result<> {
    if (logged) return store_.forget_instance(entry.instance);
    VTPM_TRY_VOID(store_.end_instance(entry, "destroyed"));
    return {};
  };
  VTPM_CO_TRY_VOID(co_await run_on(workers_.store, forget));
  if (supervision) supervision->stop_watching();
  removed(id, reason);
  co_return Result<>();
}

asio::awaitable<void> Instances::end_quietly(std::string id, std::string reason) {
  const auto outcome = co_await end(id, std::move(reason));
  if (!outcome && outcome.error().kind() != ErrorCode::NotFound)
    log_line(LogLevel::Error, "instance " + id + ": " + outcome.error().context);
}

Task<> Instances::end_container(std::string container, uid_t owner) {
  std::vector<std::string> bound;
  for (const auto& [id, instance] : registry_.all())
    if (instance.row.container == container && instance.row.owner_uid == owner) bound.push_back(id);
  for (const std::string& id : bound) {
    const auto outcome = co_await end(id, "container-ended");
    if (!outcome && outcome.error().kind() != ErrorCode::NotFound) co_return outcome;
  }
  co_return Result<>();
}

asio::awaitable<void> Instances::stop() {
  stopping_ = true;
  interval_.cancel();
  host_key_.give_up();  // an anchor that hangs must not keep the daemon
  for (const auto& [id, instance] : registry_.all())
    if (std::holds_alternative<Running>(instance.state))
      spawn(executor_, "end of an instance", end_quietly(id, "supervisor-stopped"));
  const auto busy = [](const auto& pair) {
    const State& state = pair.second.state;
    return !std::holds_alternative<Failed>(state) && !std::holds_alternative<Stopped>(state);
  };
  while (std::any_of(registry_.all().begin(), registry_.all().end(), busy))
    co_await wait_for_change();
  // A container that lives on must not keep the daemon.
  for (const auto& [id, instance] : registry_.all()) {
    const auto* failed = std::get_if<Failed>(&instance.state);
    if (failed != nullptr && failed->supervision) failed->supervision->stop_watching();
  }
}

void Instances::removed(const std::string& id, std::string_view reason) {
  Instance* instance = registry_.find(id);
  if (!std::holds_alternative<Manufacturing>(instance->state)) {
    ++counters_.destroyed;
    publish("instance.destroy", *instance, reason);
  }
  registry_.remove(id);
  changed_.cancel();
}

}  // namespace vtpm::supervisor
