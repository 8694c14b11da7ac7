// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/instances.h"

#include "daemon/supervisor/clock.h"
#include "json/strict.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/process.h>
#include <vtpm/os/secret.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace vtpm::supervisor {

using Descriptor = asio::posix::stream_descriptor;

// An engine, whose turn it is to talk to it, and the ends that are waited for.
struct Supervision {
  Supervision(const asio::any_io_executor& executor, std::shared_ptr<Engine> e)
      : engine(std::move(e)), turn(executor), engine_end(executor), container_end(executor) {}

  void stop_watching_engine() {
    boost::system::error_code ignored;  // a descriptor that was never opened
    engine_end.close(ignored);
  }
  void stop_watching() {
    stop_watching_engine();
    boost::system::error_code ignored;
    container_end.close(ignored);
  }
  // -1: bound to no container that is waited for.
  int container_pidfd() { return container_end.is_open() ? container_end.native_handle() : -1; }

  std::shared_ptr<Engine> engine;
  AsyncLock turn;  // one conversation at a time: a quote and its event log belong together
  Descriptor engine_end;
  Descriptor container_end;
};

namespace {

constexpr std::size_t kIdBytes = 8;
constexpr std::size_t kMaxNodes = 16;

Error not_running(const std::string& id) {
  return {ErrorCode::Conflict, "instance " + id + " is not running: its engine has ended"};
}

// nullptr: none, the instance is made or destroyed.
Supervision* supervision_of(const Instance& instance) {
  if (const auto* running = std::get_if<Running>(&instance.state)) return running->supervision.get();
  if (const auto* failed = std::get_if<Failed>(&instance.state)) return failed->supervision.get();
  return nullptr;
}

Result<std::string> random_id() {
  VTPM_TRY(const Secret bytes, Secret::random(kIdBytes));
  return to_hex(bytes.view());
}

// A duplicate for the reactor, so that a watch may end before the pidfd does.
Result<> watch(Descriptor& descriptor, int pidfd) {
  UniqueFd copy(::fcntl(pidfd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("a process cannot be watched", errno);
  boost::system::error_code error;
  descriptor.assign(copy.get(), error);
  if (error) return errno_error("a process cannot be watched", error.value());
  (void)copy.release();  // the descriptor's now
  return {};
}

// A short conversation with an engine. One that broke it off is of no further use: its end is noticed by its
// pidfd.
template <class Talk>
std::invoke_result_t<Talk&, ipc::EngineLink&> converse(Engine& engine, Talk talk) {
  if (!engine.link) return Error(ErrorCode::Unreachable, "the engine has ended");
  engine.begin_conversation();
  auto outcome = talk(*engine.link);
  if (!outcome && is_fatal_to_engine(outcome.error().kind())) engine.kill();
  return outcome;
}

}  // namespace

Instances::Instances(asio::any_io_executor executor, Workers& workers, Engines& engines, Store& store,
                     Registry& registry, EventBus& events, std::uint64_t host_start)
    : executor_(std::move(executor)),
      workers_(workers),
      engines_(engines),
      store_(store),
      registry_(registry),
      events_(events),
      host_start_(host_start),
      changed_(executor_, asio::steady_timer::time_point::max()) {}

Task<std::string> Instances::create(Order order) {
  if (stopping_) co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  if (order.name) VTPM_CO_TRY_VOID(check_name(*order.name));
  VTPM_CO_TRY_VOID(co_await make_way(order.owner, order.name, order.container));
  VTPM_CO_TRY(const std::string id, random_id());
  const InstanceRow row{id, order.name, order.owner, now_ms(), order.container, order.image, order.config};
  VTPM_CO_TRY_VOID(registry_.add(row, order.quota));

  const log::Launch launch{id, order.owner, order.container, order.image, order.config};
  const std::string document = log::launch_document(launch);
  const auto make = [this, document] { return engines_.manufacture(document); };
  auto made = co_await run_on(workers_.makers, make);
  if (!made) {
    removed(id, made.error().context);
    co_return made.error();
  }
  const log::Sha256 digest = tpm::sha256(as_bytes(document));
  auto index = co_await commit(row, *made, digest);
  if (!index) {
    made->engine->kill();
    removed(id, index.error().context);
    co_return index.error();
  }
  Provisioned provisioned{made->identity, digest, *index, made->engine->pid, {}};
  provisioned.event_log.append(tpm::kLaunchPcr, digest, log::kLaunchContent, document);
  const auto started =
      start(id, std::move(*made), std::move(provisioned), std::move(order.container_process));
  if (!started) {  // unwatched, it would outlive its engine or its container
    co_await destroy_quietly(id, "attach-failed");
    co_return started.error();
  }
  if (stopping_) {
    co_await destroy_quietly(id, "supervisor-stopped");
    co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  }
  co_return id;
}

asio::awaitable<void> Instances::wait_for_change() {
  co_await changed_.async_wait(kResume);
}

bool Instances::is_leaving(uid_t owner, const std::optional<std::string>& name,
                           const std::optional<std::string>& container) const {
  const auto matches = [&](const auto& pair) {
    const InstanceRow& row = pair.second.row;
    return std::holds_alternative<Destroying>(pair.second.state) && row.owner_uid == owner &&
           ((name && row.name == name) || (container && row.container == container));
  };
  return std::any_of(registry_.all().begin(), registry_.all().end(), matches);
}

// A container that was started again has the id and the name of its dead predecessor, whose end may not have
// been worked off yet.
Task<> Instances::make_way(uid_t owner, std::optional<std::string> name,
                           std::optional<std::string> container) {
  std::vector<std::string> ended;
  for (const auto& [id, instance] : registry_.all()) {
    Supervision* supervision = supervision_of(instance);
    if (supervision == nullptr || instance.row.owner_uid != owner) continue;
    const bool same_name = name && instance.row.name == name;
    const bool same_container = container && instance.row.container == container;
    if (!same_name && !same_container) continue;
    const int end = supervision->container_pidfd();
    if (end >= 0 && has_ended(end))
      ended.push_back(id);
    else if (same_container && end >= 0 && std::holds_alternative<Running>(instance.state))
      co_return Error(ErrorCode::Conflict, "container " + *container + " has an instance already: " + id);
  }
  for (const std::string& id : ended)
    co_await destroy_quietly(id, "container-ended");
  while (is_leaving(owner, name, container))
    co_await wait_for_change();
  co_return Result<>();
}

Task<std::uint64_t> Instances::commit(const InstanceRow& row, const Manufactured& made,
                                      const log::Sha256& launch) {
  const log::InstanceCreate entry{row.created,           row.id,    row.owner_uid, host_start_,
                                  row.container,         row.image, row.config,    made.identity.ek_name,
                                  made.identity.ak_name, launch};
  const auto add = [this, row, entry] { return store_.add_instance(row, entry); };
  co_return co_await run_on(workers_.store, add);
}

Result<> Instances::start(const std::string& id, Manufactured made, Provisioned provisioned,
                          UniqueFd container_process) {
  auto supervision = std::make_shared<Supervision>(executor_, std::move(made.engine));
  auto watched = watch(supervision->engine_end, supervision->engine->pidfd.get());
  if (watched && container_process) watched = watch(supervision->container_end, container_process.get());
  Instance* instance = registry_.find(id);
  instance->state = Running{std::move(provisioned), supervision, {}};
  ++counters_.created;
  publish("instance.create", *instance, "");
  if (!watched) return watched;
  spawn(executor_, "watch of an engine", watch_engine(id, supervision));
  if (container_process) spawn(executor_, "watch of a container", watch_container(id, supervision));
  return {};
}

asio::awaitable<void> Instances::watch_engine(std::string id, std::shared_ptr<Supervision> supervision) {
  const auto [error] = co_await supervision->engine_end.async_wait(Descriptor::wait_read, kResume);
  if (!error) co_await engine_died(id, supervision->engine->pid);
}

asio::awaitable<void> Instances::watch_container(std::string id, std::shared_ptr<Supervision> supervision) {
  const auto [error] = co_await supervision->container_end.async_wait(Descriptor::wait_read, kResume);
  if (!error) co_await destroy_quietly(id, "container-ended");
}

asio::awaitable<void> Instances::engine_died(std::string id, pid_t pid) {
  Instance* instance = registry_.find(id);
  auto* state = instance == nullptr ? nullptr : std::get_if<Running>(&instance->state);
  if (state == nullptr) co_return;
  const auto supervision = state->supervision;
  supervision->stop_watching_engine();  // the container's end is waited for: the instance goes with it
  Provisioned made = std::move(state->made);
  instance->state = Failed{std::move(made), "the engine ended", true, supervision};
  ++counters_.failed;
  const auto turn = co_await supervision->turn.acquire();  // end_failed waits until this is logged

  const auto ask = [this, pid] { return engines_.how_it_ended(pid); };
  const std::string how = co_await run_on(workers_.engines, ask);
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

Result<Running*> Instances::running(const std::string& id) {
  Instance* instance = registry_.find(id);
  if (instance == nullptr || shown(*instance) == nullptr)
    return Error(ErrorCode::NotFound, "no instance " + id);
  auto* state = std::get_if<Running>(&instance->state);
  if (state == nullptr) return not_running(id);
  return state;
}

Task<> Instances::serve(std::string id, Node node, UniqueFd fuse) {
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  if (state->nodes.size() >= kMaxNodes)
    co_return Error(ErrorCode::Exhausted, "instance " + id + " has 16 nodes, the limit");
  const auto serve = [engine = supervision->engine, kind = node.kind,
                      fd = std::make_shared<UniqueFd>(std::move(fuse))] {
    return converse(*engine, [&](ipc::EngineLink& link) { return link.serve(kind, std::move(*fd)); });
  };
  VTPM_CO_TRY_VOID(co_await run_on(workers_.engines, serve));
  VTPM_CO_TRY(state, running(id));
  state->nodes.push_back(std::move(node));
  co_return Result<>();
}

Result<> Instances::forget_node(const std::string& id, std::string_view path) {
  VTPM_TRY(Running * state, running(id));
  if (std::erase_if(state->nodes, [&](const Node& node) { return node.path == path; }) > 0) return {};
  return Error(ErrorCode::NotFound, "instance " + id + " has no node at " + std::string(path));
}

Task<> Instances::destroy(std::string id, std::string reason) {
  Instance* instance = registry_.find(id);
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
  const auto retire = [this, engine = supervision->engine] { return engines_.retire(*engine); };
  const auto orderly = co_await run_on(workers_.engines, retire);
  if (!orderly)
    log_line(LogLevel::Warning, "instance " + id + ": no orderly end: " + orderly.error().context);

  const log::InstanceDestroy entry{now_ms(), id, reason};
  const auto end = [this, entry] { return store_.end_instance(entry, "destroyed"); };
  const auto logged = co_await run_on(workers_.store, end);
  if (logged) {
    supervision->stop_watching();
    removed(id, reason);
    co_return Result<>();
  }
  instance = registry_.find(id);
  made = std::move(std::get<Destroying>(instance->state).made);
  instance->state =
      Failed{std::move(made), "destroyed, but not logged: " + logged.error().context, false, supervision};
  changed_.cancel();
  co_return logged.error();
}

Task<> Instances::end_failed(std::string id, std::string reason) {
  const auto supervision = std::get<Failed>(registry_.find(id)->state).supervision;
  const auto turn = co_await supervision->turn.acquire();
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
  supervision->stop_watching();
  removed(id, reason);
  co_return Result<>();
}

asio::awaitable<void> Instances::destroy_quietly(std::string id, std::string reason) {
  const auto outcome = co_await destroy(id, std::move(reason));
  if (!outcome && outcome.error().kind() != ErrorCode::NotFound)
    log_line(LogLevel::Error, "instance " + id + ": " + outcome.error().context);
}

Task<> Instances::destroy_container(std::string container, uid_t owner) {
  std::vector<std::string> bound;
  for (const auto& [id, instance] : registry_.all())
    if (instance.row.container == container && instance.row.owner_uid == owner) bound.push_back(id);
  for (const std::string& id : bound) {
    const auto outcome = co_await destroy(id, "container-ended");
    if (!outcome && outcome.error().kind() != ErrorCode::NotFound) co_return outcome;
  }
  co_return Result<>();
}

Task<> Instances::measure(std::string id, log::Sha256 digest, std::string description) {
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  if (state->made.event_log.events().size() >= log::kMaxEvents)
    co_return Error(ErrorCode::Exhausted, "instance " + id + " has " + std::to_string(log::kMaxEvents) +
                                              " records in its event log, the limit");
  const auto extend = [engine = supervision->engine, digest] {
    return converse(*engine,
                    [&](ipc::EngineLink& link) { return identity::extend(link, tpm::kOperatorPcr, digest); });
  };
  VTPM_CO_TRY_VOID(co_await run_on(workers_.engines, extend));
  VTPM_CO_TRY(state, running(id));
  state->made.event_log.append(tpm::kOperatorPcr, digest, log::kStatementContent, std::move(description));
  publish("instance.measure", *registry_.find(id), "");
  co_return Result<>();
}

Task<QuotedInstance> Instances::quote(std::string id, log::Sha256 qualifying_data) {
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  const auto sign = [engine = supervision->engine, ak = state->made.identity.ak_name, qualifying_data] {
    return converse(*engine,
                    [&](ipc::EngineLink& link) { return identity::quote(link, ak, qualifying_data); });
  };
  VTPM_CO_TRY(identity::InstanceQuote quote, co_await run_on(workers_.engines, sign));
  VTPM_CO_TRY(state, running(id));
  const Provisioned& made = state->made;
  co_return QuotedInstance{std::move(quote), made.identity.ak_public, made.log_index, made.event_log};
}

asio::awaitable<void> Instances::stop() {
  stopping_ = true;
  for (const auto& [id, instance] : registry_.all())
    if (std::holds_alternative<Running>(instance.state))
      spawn(executor_, "destruction of an instance", destroy_quietly(id, "supervisor-stopped"));
  const auto busy = [](const auto& pair) { return !std::holds_alternative<Failed>(pair.second.state); };
  while (std::any_of(registry_.all().begin(), registry_.all().end(), busy))
    co_await wait_for_change();
  // A container that lives on must not keep the daemon.
  for (const auto& [id, instance] : registry_.all())
    std::get<Failed>(instance.state).supervision->stop_watching();
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

void Instances::publish(std::string_view kind, const Instance& instance, std::string_view reason) {
  json::Value event{{"event", kind}, {"id", instance.row.id}, {"time", now_ms()}};
  if (instance.row.name) event["name"] = *instance.row.name;
  if (!reason.empty()) event["reason"] = reason;
  events_.publish(kind, instance.row.owner_uid, json::dump(event));
}

}  // namespace vtpm::supervisor
