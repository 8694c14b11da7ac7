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

}  // namespace

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
  Provisioned provisioned{made->identity, digest, 0, made->engine->pid, {}};
  provisioned.event_log.append(tpm::kLaunchPcr, digest, log::kLaunchContent, document);
  auto index = co_await commit(row, *made, digest, runtime_text(provisioned, {}));
  if (!index) {
    made->engine->kill();
    removed(id, index.error().context);
    co_return index.error();
  }
  provisioned.log_index = *index;
  const auto started =
      start(id, std::move(*made), std::move(provisioned), std::move(order.container_process));
  if (!started) {  // unwatched, it would outlive its engine or its container
    co_await destroy_quietly(id, "attach-failed");
    co_return started.error();
  }
  co_await keep(id);
  if (stopping_) {
    co_await destroy_quietly(id, "supervisor-stopped");
    co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  }
  co_return id;
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
                                      const log::Sha256& launch, std::string runtime) {
  const log::InstanceCreate entry{row.created,           row.id,    row.owner_uid, host_start_,
                                  row.container,         row.image, row.config,    made.identity.ek_name,
                                  made.identity.ak_name, launch};
  const auto add = [this, row, entry, runtime = std::move(runtime)] {
    return store_.add_instance(row, entry, runtime);
  };
  co_return co_await run_on(workers_.store, add);
}

Result<> Instances::start(const std::string& id, Manufactured made, Provisioned provisioned,
                          UniqueFd container_process) {
  const auto watched =
      supervise(id, std::move(made.engine), std::move(provisioned), {}, std::move(container_process));
  ++counters_.created;
  publish("instance.create", *registry_.find(id), "");
  return watched;
}

Result<> Instances::supervise(const std::string& id, std::shared_ptr<Engine> engine, Provisioned made,
                              std::vector<Node> nodes, UniqueFd container_process) {
  auto supervision = std::make_shared<Supervision>(executor_, std::move(engine));
  auto watched = watch(supervision->engine_end, supervision->engine->pidfd.get());
  if (watched && container_process) watched = watch(supervision->container_end, container_process.get());
  registry_.find(id)->state = Running{std::move(made), supervision, std::move(nodes)};
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

}  // namespace vtpm::supervisor
