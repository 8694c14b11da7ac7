// SPDX-License-Identifier: Apache-2.0
// How an instance begins: made, logged, watched.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/runtime_text.h"
#include "daemon/supervisor/supervision.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/process.h>
#include <vtpm/os/secret.h>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kIdBytes = 8;
// Of a durable TPM. runc tries for 150 ms to remove a version 1 cgroup (RemovePaths in its
// libcontainer/cgroups), newer ones for a second, of either version.
constexpr std::chrono::milliseconds kForOrderlyEnd{50};
constexpr std::chrono::milliseconds kToBeNoticed{1000};  // that the container of a silent engine has ended
constexpr std::chrono::milliseconds kBetweenLooks{100};

// nullptr: none, the instance is not running, or between two states.
Supervision* supervision_of(const Instance& instance) {
  if (const auto* running = std::get_if<Running>(&instance.state)) return running->supervision.get();
  if (const auto* failed = std::get_if<Failed>(&instance.state)) return failed->supervision.get();
  return nullptr;
}

// The order's instance, or its container's.
bool is_meant(const InstanceRow& row, const Order& order) {
  return row.owner_uid == order.owner &&
         ((order.name && row.name == order.name) ||
          (order.launch.container && row.container == order.launch.container));
}

// A durable instance that an operator started and nobody uses: it may be had for a container.
bool is_idle(const Instance& instance) {
  const auto* running = std::get_if<Running>(&instance.state);
  return running != nullptr && instance.row.durable && running->nodes.empty() &&
         running->supervision->container_pidfd() < 0;
}

Result<std::string> random_id() {
  VTPM_TRY(const Secret bytes, Secret::random(kIdBytes));
  return to_hex(bytes.view());
}

}  // namespace

Result<> watch(Descriptor& descriptor, int pidfd) {
  UniqueFd copy(::fcntl(pidfd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("a process cannot be watched", errno);
  boost::system::error_code error;
  descriptor.assign(copy.get(), error);
  if (error) return errno_error("a process cannot be watched", error.value());
  (void)copy.release();  // the descriptor's now
  return {};
}

asio::awaitable<bool> process_ended(Descriptor& watched) {
  for (;;) {
    const auto [error] = co_await watched.async_wait(Descriptor::wait_read, kResume);
    if (error || !watched.is_open()) co_return false;
    if (has_ended(watched.native_handle())) co_return true;
  }
}

Task<std::string> Instances::create(Order order) {
  if (stopping_) co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  if (order.durable && !order.name) order.name = order.launch.container;
  if (order.name) VTPM_CO_TRY_VOID(check_name(*order.name));
  VTPM_CO_TRY_VOID(co_await make_way(order));
  VTPM_CO_TRY(const std::optional<std::string> known, known_durable(order));
  if (known) co_return co_await start_again(*known, std::move(order.launch), order.limits);
  co_return co_await create_new(std::move(order));
}

Task<std::string> Instances::create_new(Order order) {
  VTPM_CO_TRY_VOID(check_order(limits_, order.limits));
  VTPM_CO_TRY(const std::string id, random_id());
  const LaunchedFor& launch = order.launch;
  InstanceRow row{id, order.name, order.owner, now_ms(), launch.container, launch.image, launch.config};
  row.limits = order.limits;
  VTPM_CO_TRY_VOID(registry_.add(row, order.quota));

  const std::string document =
      log::launch_document({id, order.owner, launch.container, launch.image, launch.config});
  const EngineTerms terms{limits_of(row), launch.cgroup};
  auto made = co_await make(id, order.durable, document, terms);
  if (!made) {
    removed(id, made.error().context);
    co_return made.error();
  }
  const log::Sha256 digest = tpm::sha256(as_bytes(document));
  Provisioned provisioned{made->identity,      digest, 0, made->engine->pid, {}, terms.limits,
                          made->engine->placed};
  provisioned.event_log.append(tpm::kLaunchPcr, digest, log::kLaunchContent, document);
  auto index = co_await commit(registry_.find(id)->row, *made, digest, runtime_text(provisioned, {}));
  if (!index) {
    co_await discard(id, made->engine);
    removed(id, index.error().context);
    co_return index.error();
  }
  provisioned.log_index = *index;
  ++counters_.created;
  Bonds bonds{std::move(order.launch.container_process), std::move(order.launch.cgroup)};
  const auto started = start(id, std::move(*made), std::move(provisioned), std::move(bonds));
  if (!started) {  // unwatched, it would outlive its engine or its container
    co_await end_quietly(id, "attach-failed");
    co_return started.error();
  }
  co_await keep(id);
  if (stopping_) {
    co_await end_quietly(id, "supervisor-stopped");
    co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  }
  co_return id;
}

Task<Manufactured> Instances::make(std::string id, bool durable, std::string document, EngineTerms terms) {
  if (!durable) {
    const auto make = [this, document, terms] { return engines_.manufacture(document, terms); };
    co_return co_await run_on(workers_.makers, make);
  }
  VTPM_CO_TRY(const HostKey::Shared host_key, co_await host_key_.get(keys_in_use()));
  const auto make = [this, host_key, id, document, terms] {
    return durable_.make(*host_key, id, document, terms);
  };
  VTPM_CO_TRY(NewDurable made, co_await run_on(workers_.makers, make));
  registry_.find(id)->row.durable = std::move(made.row);
  co_return std::move(made.made);
}

std::optional<std::string> Instances::leaving(const Order& order) const {
  const auto leaves = [&](const auto& pair) {
    const State& state = pair.second.state;
    return is_meant(pair.second.row, order) &&
           (std::holds_alternative<Destroying>(state) || is_between_states(state));
  };
  const auto one = std::find_if(registry_.all().begin(), registry_.all().end(), leaves);
  return one == registry_.all().end() ? std::nullopt : std::optional(one->first);
}

// Nobody knows when an engine that is silent will answer, and who asks holds descriptors meanwhile. But its
// container may have ended just now, which is about to be noticed.
Task<> Instances::wait_for_leaving(const Order& order) {
  const auto until = std::chrono::steady_clock::now() + kToBeNoticed;
  for (auto id = leaving(order); id; id = leaving(order)) {
    if (!silent_.contains(*id)) {
      co_await wait_for_change();
      continue;
    }
    if (std::chrono::steady_clock::now() >= until)
      co_return Error(
          ErrorCode::Busy,
          "instance " + *id + " is there already, and its engine does not answer; it may be frozen");
    asio::steady_timer pause(executor_, kBetweenLooks);
    co_await pause.async_wait(kResume);
  }
  co_return Result<>();
}

// The instances of the order's name or container whose own container has ended, or that have none to lose.
Result<std::vector<std::string>> Instances::over(const Order& order) const {
  std::vector<std::string> ended;
  for (const auto& [id, instance] : registry_.all()) {
    Supervision* supervision = supervision_of(instance);
    if (supervision == nullptr || !is_meant(instance.row, order)) continue;
    const int end = supervision->container_pidfd();
    const bool taken_over = order.durable && order.launch.container_process && is_idle(instance);
    if (taken_over || (end >= 0 && has_ended(end)))
      ended.push_back(id);
    else if (order.launch.container && instance.row.container == order.launch.container && end >= 0 &&
             std::holds_alternative<Running>(instance.state))
      return Error(ErrorCode::Conflict,
                   "container " + *order.launch.container + " has an instance already: " + id);
  }
  return ended;
}

// A container that was started again has the id and the name of its dead predecessor, whose end may not have
// been worked off yet. Twice: what was between two states may turn out to be over.
Task<> Instances::make_way(const Order& order) {
  for (int pass = 0; pass < 2; ++pass) {
    VTPM_CO_TRY(const std::vector<std::string> ended, over(order));
    for (const std::string& id : ended)
      co_await end_quietly(id, "container-ended");
    VTPM_CO_TRY_VOID(co_await wait_for_leaving(order));
  }
  co_return Result<>();
}

Task<std::uint64_t> Instances::commit(InstanceRow row, const Manufactured& made, const log::Sha256& launch,
                                      std::string runtime) {
  const log::InstanceCreate entry{row.created,           row.id,    row.owner_uid, host_start_,
                                  row.container,         row.image, row.config,    made.identity.ek_name,
                                  made.identity.ak_name, launch};
  const auto add = [this, row = std::move(row), entry, identity = made.identity,
                    runtime = std::move(runtime)] {
    return store_.add_instance(row, entry, identity, runtime);
  };
  co_return co_await run_on(workers_.store, add);
}

// Of an instance that nobody was told of.
asio::awaitable<void> Instances::discard(std::string id, std::shared_ptr<Engine> engine) {
  if (!registry_.find(id)->row.durable) {
    engine->kill();
    co_return;
  }
  const auto undo = [this, id, engine] { return durable_.discard(id, engine.get()); };
  const auto undone = co_await run_on(workers_.makers, undo);
  if (!undone) log_line(LogLevel::Error, "instance " + id + ": not removed: " + undone.error().context);
}

Result<> Instances::start(const std::string& id, Manufactured made, Provisioned provisioned, Bonds bonds) {
  const auto watched = supervise(id, std::move(made.engine), std::move(provisioned), {}, std::move(bonds));
  publish("instance.create", *registry_.find(id), "");
  return watched;
}

Result<> Instances::supervise(const std::string& id, std::shared_ptr<Engine> engine, Provisioned made,
                              std::vector<Node> nodes, Bonds bonds) {
  auto supervision = std::make_shared<Supervision>(executor_, std::move(engine));
  // An ephemeral one has no engine but this: no descriptor is kept by which processes can be moved.
  if (registry_.find(id)->row.durable) supervision->cgroup = std::move(bonds.cgroup);
  const UniqueFd& container = bonds.container_process;
  auto watched = watch(supervision->engine_end, supervision->engine->pidfd.get());
  if (watched && container) watched = watch(supervision->container_end, container.get());
  become(id, Running{std::move(made), supervision, std::move(nodes)});
  if (!watched) return watched;
  spawn(executor_, "watch of an engine", watch_engine(id, supervision));
  if (container) spawn(executor_, "watch of a container", watch_container(id, supervision));
  return {};
}

asio::awaitable<void> Instances::watch_engine(std::string id, std::shared_ptr<Supervision> supervision) {
  const pid_t pid = supervision->engine->pid;
  const bool ended = co_await process_ended(supervision->engine_end);
  if (ended) co_await engine_died(id, pid);
}

// The runtime removes the cgroup of a container that has ended, at once or within a moment, and leaves it
// behind where it cannot: there is no time for an engine that is busy or paused. Nothing is lost: what a
// durable one has answered is stored.
asio::awaitable<void> Instances::clear_cgroup(std::shared_ptr<Engine> engine) {
  asio::steady_timer pause(executor_, kForOrderlyEnd);
  co_await pause.async_wait(kResume);
  engine->kill();
}

asio::awaitable<void> Instances::watch_container(std::string id, std::shared_ptr<Supervision> supervision) {
  const bool ended = co_await process_ended(supervision->container_end);
  if (ended && supervision->engine->placed) {
    const Instance* instance = registry_.find(id);
    if (instance != nullptr && instance->row.durable)
      spawn(executor_, "end of an engine", clear_cgroup(supervision->engine));
    else
      supervision->engine->kill();
  }
  if (ended) co_await end_quietly(id, "container-ended");
}

}  // namespace vtpm::supervisor
