// SPDX-License-Identifier: Apache-2.0
// The engine of a durable instance died: another continues from the slot files, as after a TPM Reset, and
// serves the same nodes. Or the instance has failed, and says so: never anything in between.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/nodes.h"
#include "daemon/supervisor/supervision.h"

#include <fcntl.h>

#include <algorithm>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kMaxDeaths = 5;
constexpr auto kDeathsWithin = 60s;
constexpr auto kPause = 200ms;  // before the second try, and for each one more

// How many of this launch's engines died recently, this one included.
std::size_t count_death(Supervision& supervision) {
  const auto now = std::chrono::steady_clock::now();
  auto& deaths = supervision.deaths;
  deaths.push_back(now);
  while (now - deaths.front() > kDeathsWithin)
    deaths.pop_front();
  return deaths.size();
}

}  // namespace

asio::awaitable<void> Instances::reset(std::string id, pid_t pid) {
  auto& running = std::get<Running>(registry_.find(id)->state);
  const auto supervision = running.supervision;
  supervision->stop_watching_engine();
  become(id, Resetting{std::move(running.made), supervision, std::move(running.nodes)});
  {
    const auto turn = co_await supervision->turn.acquire();
    const auto ask = [this, pid] { return engines_.how_it_ended(pid); };
    const std::string how = co_await run_on(workers_.engines, ask);
    log_line(LogLevel::Error,
             "instance " + id + ": its engine (pid " + std::to_string(pid) + ") ended: " + how);
    co_await reset_in_turn(id, how);
  }
  // The keeper has the old engine's pidfd and the nodes all the time: a vtpmd that dies here is followed by
  // one that finds the engine dead, and does this again.
  if (this->running(id)) {
    co_await record_quietly(id);
    co_await keep(id);
  }
  if (stopping_ && !handing_over_) co_await end_quietly(id, "supervisor-stopped");
}

asio::awaitable<void> Instances::reset_in_turn(std::string id, std::string how) {
  Instance* instance = registry_.find(id);
  Resetting state = std::move(std::get<Resetting>(instance->state));
  instance->state = Resetting{state.made, state.supervision, {}};
  const InstanceRow row = instance->row;
  const std::size_t deaths = count_death(*state.supervision);
  const std::string document =
      log::launch_document({row.id, row.owner_uid, row.container, row.image, row.config});

  const EngineTerms terms{limits_of(row), state.supervision->cgroup};
  Result<Manufactured> next = Error(
      ErrorCode::Conflict, "more than " + std::to_string(kMaxDeaths) +
                               " of its engines died within 60 s; vtpmctl attach or create starts it again");
  if (state.made.placed && !terms.cgroup) {
    next = Error(ErrorCode::Conflict, "the keeper did not have its container's cgroup for another one");
  } else if (deaths <= kMaxDeaths) {
    asio::steady_timer pause(executor_, kPause * (deaths - 1));
    co_await pause.async_wait(kResume);
    next = co_await resume(row, state.made.identity, document, terms);
  }
  Result<std::uint64_t> logged = next ? Result<std::uint64_t>(0) : Result<std::uint64_t>(next.error());
  if (next) {
    const log::InstanceReset entry{now_ms(), id, how};
    const auto note = [this, entry, sequence = next->sequence] {
      return store_.reset_instance(entry, sequence);
    };
    logged = co_await run_on(workers_.store, note);
  }
  if (logged) {
    state.supervision->engine = next->engine;
    const auto watched = watch(state.supervision->engine_end, next->engine->pidfd.get());
    if (!watched) logged = watched.error();
  }
  if (!logged) {
    if (next) {
      const auto retire = [this, engine = next->engine] { return engines_.retire(*engine); };
      static_cast<void>(co_await run_on(workers_.engines, retire));
    }
    state.supervision->stop_watching();
    state.nodes.clear();
    co_await let_go(id);  // their users get ENOTCONN
    state.made.engine_pid = 0;
    state.made.limits.reset();
    state.made.placed = false;
    const std::string reason = "its engine ended (" + how + "), and: " + logged.error().context;
    log_line(LogLevel::Error, "instance " + id + " has failed: " + reason);
    // While vtpmd stops the next one starts it.
    const ErrorCode kind = stopping_ && !next ? next.error().kind() : ErrorCode::Conflict;
    co_await cannot_start(id, std::move(state.made), Error(kind, reason));
    co_return;
  }
  Durable& durable = *registry_.find(id)->row.durable;
  durable.sequence = std::max(durable.sequence, next->sequence);
  state.made.engine_pid = next->engine->pid;
  state.made.limits = terms.limits;
  state.made.event_log = {};
  state.made.event_log.append(tpm::kLaunchPcr, state.made.launch, log::kLaunchContent, document);
  co_await serve_orphans(id, state.supervision, state.nodes);
  log_line(LogLevel::Info, "instance " + id + " continues after a TPM Reset: engine pid " +
                               std::to_string(next->engine->pid));
  const auto supervision = state.supervision;
  become(id, Running{std::move(state.made), supervision, std::move(state.nodes)});
  spawn(executor_, "watch of an engine", watch_engine(id, supervision));
  publish("instance.reset", *registry_.find(id), how);
}

// The nodes of the dead engine, as far as vtpmd has their descriptors.
asio::awaitable<void> Instances::serve_orphans(std::string id, std::shared_ptr<Supervision> supervision,
                                               std::vector<Node>& nodes) {
  std::vector<std::uint8_t> gone;
  for (Node& node : nodes) {
    if (node.gone) continue;
    const auto copy = std::make_shared<PeerFd>(node.channel.duplicate());
    const auto serve = [engine = supervision->engine, kind = node.kind, channel = next_channel(node), copy] {
      return converse(*engine, [&](ipc::EngineLink& link) { return link.serve(kind, copy->get(), channel); });
    };
    Result<> served = Error(ErrorCode::NotFound, "vtpmd has not its descriptor");
    if (*copy) served = co_await run_on(workers_.engines, serve);
    if (served) continue;
    // This engine has died, too: the next one serves it.
    if (is_fatal_to_engine(served.error().kind())) continue;
    log_line(LogLevel::Warning, "the node " + node.path + " is gone: " + served.error().context);
    node.gone = true;
    node.channel.reset();
    gone.push_back(node.number);
  }
  co_await drop_nodes(id, std::move(gone));
}

}  // namespace vtpm::supervisor
