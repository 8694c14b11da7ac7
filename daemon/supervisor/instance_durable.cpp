// SPDX-License-Identifier: Apache-2.0
// What durable instances do besides: stopped, started again from their slot files, their state anchored in
// the log.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/runtime_text.h"
#include "daemon/supervisor/supervision.h"

#include <algorithm>

namespace vtpm::supervisor {
namespace {

constexpr std::chrono::seconds kAnchoring{10};  // in total, while vtpmd hands over

// Errors that the same try would meet again: the state is damaged, the host key is not to be had, the tenant
// made its own identity impossible. After another one the instance is as it was.
bool is_lasting(ErrorCode code) noexcept {
  return code == ErrorCode::Corrupt || code == ErrorCode::Conflict || code == ErrorCode::Configuration;
}

Provisioned at_rest(Provisioned made) {
  made.engine_pid = 0;
  made.event_log = {};
  made.limits.reset();
  made.placed = false;
  return made;
}

// nullptr: it is neither stopped nor failed.
Provisioned* resting(Instance& instance) {
  if (!instance.row.durable) return nullptr;
  if (auto* stopped = std::get_if<Stopped>(&instance.state)) return &stopped->made;
  if (auto* failed = std::get_if<Failed>(&instance.state)) return &failed->made;
  return nullptr;
}

log::Launch launch_of(const InstanceRow& row) {
  return {row.id, row.owner_uid, row.container, row.image, row.config};
}

}  // namespace

void Instances::load(std::vector<StoredInstance> stored) {
  for (StoredInstance& instance : stored) {
    Provisioned made{std::move(instance.identity), instance.launch, instance.log_index, 0, {}};
    State state = Stopped{made};
    if (instance.failure) state = Failed{std::move(made), std::move(*instance.failure), false, nullptr};
    registry_.restore(std::move(instance.row), std::move(state));
  }
}

bool Instances::keys_in_use() const {
  const auto has_key = [](const auto& pair) { return pair.second.row.durable.has_value(); };
  return std::any_of(registry_.all().begin(), registry_.all().end(), has_key);
}

asio::awaitable<void> Instances::keep_durable(std::chrono::seconds interval) {
  if (keys_in_use()) {
    const auto key = co_await host_key_.get(true);
    if (!key) fail_all(key.error());
  }
  std::vector<std::string> unbound;
  for (const auto& [id, instance] : registry_.all())
    if (std::holds_alternative<Stopped>(instance.state) && !instance.row.container) unbound.push_back(id);
  for (const std::string& id : unbound)
    spawn(executor_, "start of a durable instance", start_quietly(id));
  while (!stopping_) {
    co_await anchor_states();  // at first what was stored while there was no vtpmd
    if (stopping_) co_return;
    interval_.expires_after(interval);
    co_await interval_.async_wait(kResume);
  }
}

// Without the host key: each says why, and is tried again when it is asked for.
void Instances::fail_all(const Error& error) {
  log_line(LogLevel::Error, "durable instances cannot be started: " + error.context);
  if (!is_lasting(error.kind())) return;
  for (const auto& [id, instance] : registry_.all())
    if (const auto* stopped = std::get_if<Stopped>(&instance.state))
      become(id, Failed{stopped->made, error.context, false, nullptr});
}

asio::awaitable<void> Instances::start_quietly(std::string id) {
  Instance* instance = registry_.find(id);
  if (stopping_ || instance == nullptr || resting(*instance) == nullptr) co_return;
  const InstanceRow row = instance->row;
  const auto started = co_await start_again(id, {std::nullopt, row.image, row.config, {}});
  if (!started) log_line(LogLevel::Error, started.error().context);
}

// One question to each engine and, for those that have stored something, one entry.
asio::awaitable<void> Instances::anchor_states() {
  std::vector<std::string> ids;
  for (const auto& [id, instance] : registry_.all())
    if (instance.row.durable && std::holds_alternative<Running>(instance.state)) ids.push_back(id);
  std::vector<log::InstanceState> changed;
  const auto until = std::chrono::steady_clock::now() + kAnchoring;
  for (const std::string& id : ids) {
    // The next vtpmd asks the rest.
    if (handing_over_ && std::chrono::steady_clock::now() > until) break;
    auto state = running(id);
    if (!state) continue;
    const auto supervision = (*state)->supervision;
    const auto turn = co_await supervision->turn.acquire();
    if (!running(id)) continue;
    forget_dead_nodes(id);
    // One that does not answer may be frozen: what it has stored is anchored later.
    const auto ask = [engine = supervision->engine] { return committed_sequence_if_free(*engine); };
    const Result<std::uint64_t> sequence = co_await run_on(workers_.meters, ask);
    Instance* instance = registry_.find(id);
    if (!sequence || instance == nullptr || *sequence <= instance->row.durable->sequence) continue;
    changed.push_back({now_ms(), id, *sequence});
  }
  if (changed.empty()) co_return;
  const auto note = [this, changed] { return store_.note_states(changed); };
  const auto noted = co_await run_on(workers_.store, note);
  if (!noted) {
    log_line(LogLevel::Error, "durable instances' states are not logged: " + noted.error().context);
    co_return;
  }
  for (const auto& [time, id, sequence] : changed) {
    Instance* instance = registry_.find(id);
    if (instance == nullptr || !instance->row.durable) continue;
    std::uint64_t& anchored = instance->row.durable->sequence;
    anchored = std::max(anchored, sequence);
  }
}

// Whoever uses a stopped instance from outside a container starts it, with no container measured.
Task<> Instances::wake(const std::string& id) {
  co_await settle(id);
  Instance* instance = registry_.find(id);
  if (stopping_ || instance == nullptr || resting(*instance) == nullptr) co_return Result<>();
  VTPM_CO_TRY_VOID(co_await start_again(id, {}));
  co_return Result<>();
}

Task<Manufactured> Instances::resume(InstanceRow row, identity::Identity identity, std::string document,
                                     EngineTerms terms) {
  VTPM_CO_TRY(const HostKey::Shared host_key, co_await host_key_.get(true));
  const auto power = [this, host_key, row = std::move(row), identity = std::move(identity), document, terms] {
    return durable_.resume(*host_key, row, identity, document, terms);
  };
  co_return co_await run_on(workers_.makers, power);
}

Task<std::string> Instances::start_again(std::string id, LaunchedFor launch, LimitOrder limits_set) {
  Instance* instance = registry_.find(id);
  LimitOrder limits_now = instance->row.limits;
  if (!limits_set.empty()) {
    VTPM_CO_TRY(limits_now, merged(limits_, limits_now, limits_set));
  }
  Provisioned before = at_rest(std::move(*resting(*instance)));
  become(id, Starting{before});
  InstanceRow row = instance->row;
  row.container = launch.container;
  row.image = launch.image;
  row.config = launch.config;
  row.limits = limits_now;
  const std::string document = log::launch_document(launch_of(row));
  const EngineTerms terms{limits_of(row), launch.cgroup};
  auto made = co_await resume(row, before.identity, document, terms);
  if (!made) {
    const Error error = made.error().within("instance " + id);
    co_await cannot_start(id, std::move(before), made.error());
    co_return error;
  }
  row.durable->sequence = std::max(row.durable->sequence, made->sequence);
  const log::Sha256 digest = tpm::sha256(as_bytes(document));
  Provisioned provisioned{before.identity,     digest, 0, made->engine->pid, {}, terms.limits,
                          made->engine->placed};
  provisioned.event_log.append(tpm::kLaunchPcr, digest, log::kLaunchContent, document);
  auto index = co_await commit_restart(row, *made, digest, runtime_text(provisioned, {}));
  if (!index) {
    const auto retire = [this, engine = made->engine] { return engines_.retire(*engine); };
    static_cast<void>(co_await end_engine(workers_, engines_, made->engine, retire));
    become(id, Stopped{std::move(before)});
    co_return index.error();
  }
  registry_.find(id)->row = std::move(row);
  provisioned.log_index = *index;
  Bonds bonds{std::move(launch.container_process), std::move(launch.cgroup)};
  const auto started = start(id, std::move(*made), std::move(provisioned), std::move(bonds));
  if (started) co_await keep(id);
  if (!started || stopping_) {
    co_await end_quietly(id, started ? "supervisor-stopped" : "attach-failed");
    co_return started ? Error(ErrorCode::Unavailable, "vtpmd is stopping") : started.error();
  }
  co_return id;
}

Task<std::uint64_t> Instances::commit_restart(InstanceRow row, const Manufactured& made,
                                              const log::Sha256& launch, std::string runtime) {
  const log::InstanceCreate entry{
      now_ms(),  row.id,     row.owner_uid,         host_start_,           row.container,
      row.image, row.config, made.identity.ek_name, made.identity.ak_name, launch};
  const auto restart = [this, row = std::move(row), entry, runtime = std::move(runtime)] {
    return store_.restart_instance(row, entry, runtime);
  };
  co_return co_await run_on(workers_.store, restart);
}

asio::awaitable<void> Instances::cannot_start(std::string id, Provisioned made, Error error) {
  made = at_rest(std::move(made));
  if (!is_lasting(error.kind())) {
    become(id, Stopped{std::move(made)});
    co_return;
  }
  const auto mark = [this, id, reason = error.context] { return store_.mark_failed(id, reason); };
  const auto marked = co_await run_on(workers_.store, mark);
  if (!marked) log_line(LogLevel::Error, "instance " + id + ": not recorded: " + marked.error().context);
  ++counters_.failed;
  become(id, Failed{std::move(made), error.context, false, nullptr});
  publish("instance.failed", *registry_.find(id), error.context);
}

Task<> Instances::stop_running(std::string id, std::string reason) {
  const auto supervision = std::get<Running>(registry_.find(id)->state).supervision;
  Provisioned made = at_rest(std::move(std::get<Running>(registry_.find(id)->state).made));
  become(id, Stopping{made});  // and with its nodes go the duplicates of their descriptors
  supervision->stop_watching();
  const auto turn = co_await supervision->turn.acquire();
  co_await let_go(id);
  const auto stop = [this, engine = supervision->engine] { return engines_.stop(*engine); };
  const Result<std::uint64_t> sequence = co_await end_engine(workers_, engines_, supervision->engine, stop);
  if (!sequence)
    log_line(LogLevel::Warning, "instance " + id + ": no orderly end: " + sequence.error().context);

  const std::optional<std::uint64_t> anchored = sequence ? std::optional(*sequence) : std::nullopt;
  co_return co_await stopped(id, std::move(made), anchored, reason);
}

// `sequence`: of the last commit of what has ended in order.
Task<> Instances::stopped(std::string id, Provisioned made, std::optional<std::uint64_t> sequence,
                          std::string reason) {
  const auto record = [this, id, sequence]() -> Result<> {
    if (!sequence) return store_.mark_stopped(id);
    VTPM_TRY_VOID(store_.stop_instance({now_ms(), id, *sequence}));
    return {};
  };
  const auto recorded = co_await run_on(workers_.store, record);
  Durable& durable = *registry_.find(id)->row.durable;
  if (sequence) durable.sequence = std::max(durable.sequence, *sequence);
  become(id, Stopped{at_rest(std::move(made))});
  publish("instance.stop", *registry_.find(id), reason);
  co_return recorded;
}

// A stopped or failed one. The files go once the log says that they do: a crash in between leaves files of a
// destroyed instance, which the next start removes.
Task<> Instances::destroy_stored(std::string id, std::string reason) {
  Instance* instance = registry_.find(id);
  State before = std::move(instance->state);
  become(id, Destroying{});
  const log::InstanceDestroy entry{now_ms(), id, reason};
  const auto end = [this, entry] { return store_.end_instance(entry, "destroyed"); };
  const auto logged = co_await run_on(workers_.store, end);
  if (!logged) {
    become(id, std::move(before));
    co_return logged.error();
  }
  co_await remove_files(id);
  removed(id, reason);
  co_return Result<>();
}

asio::awaitable<void> Instances::remove_files(std::string id) {
  const auto remove = [this, id] { return durable_.files().remove(id); };
  const auto done = co_await run_on(workers_.makers, remove);
  if (!done) log_line(LogLevel::Error, "instance " + id + " is destroyed, but: " + done.error().context);
}

Result<std::optional<std::string>> Instances::known_durable(const Order& order) const {
  if (!order.name) return std::optional<std::string>();
  for (const auto& [id, instance] : registry_.all()) {
    if (instance.row.owner_uid != order.owner || instance.row.name != order.name) continue;
    const std::string subject = "the instance named " + *order.name;
    if (!instance.row.durable && !order.durable) break;  // the registry says so
    if (!instance.row.durable)
      return Error(ErrorCode::Conflict, subject + " is there already and is not durable");
    if (!order.durable)
      return Error(ErrorCode::Conflict,
                   subject + " is durable: ask for a durable one (dev.vtpm.durable=true), or another name");
    if (!std::holds_alternative<Stopped>(instance.state) && !std::holds_alternative<Failed>(instance.state))
      return Error(ErrorCode::Conflict,
                   subject + " is " + std::string(state_name(instance.state)) +
                       (instance.row.container ? " in container " + *instance.row.container : "") + ": " +
                       id);
    return std::optional(id);
  }
  return std::optional<std::string>();
}

}  // namespace vtpm::supervisor
