// SPDX-License-Identifier: Apache-2.0
// The engine of a durable instance died: another continues from the slot files, as after a TPM Reset, and
// serves the same nodes. Or the instance has failed, and says so: never anything in between.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/nodes.h"
#include "daemon/supervisor/supervision.h"

#include <vtpm/os/process.h>

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

// What serves it, too, may have been killed with all of its cgroup: that is its end, and no failure.
bool has_lost_container(Supervision& supervision) {
  const int container = supervision.container_pidfd();
  return container >= 0 && has_ended(container);
}

Result<std::vector<Result<>>> serve_all(Engine& engine, std::span<const ipc::EngineLink::Served> nodes) {
  if (nodes.empty()) return std::vector<Result<>>();
  engine.begin_conversation(kFreeConversation);
  auto served = engine.link->serve_all(nodes);
  if (!served) engine.kill();
  return served;
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
    const std::string how = co_await run_on(workers_.endings, ask);
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
  const auto supervision = state.supervision;
  const std::string document =
      log::launch_document({row.id, row.owner_uid, row.container, row.image, row.config});
  const EngineTerms terms{limits_of(row), supervision->cgroup};
  const auto next = co_await next_engine(row, state.made, supervision, document, terms);
  std::shared_ptr<Engine> engine;
  if (next) engine = next->engine;
  if (has_lost_container(*supervision)) {
    co_await stop_in_turn(id, std::move(state), std::move(engine));
    co_return;
  }
  Result<> begun;
  if (next)
    begun = co_await begin_with(id, how, supervision, *next);
  else
    begun = next.error();
  if (!begun) {
    co_await fail_in_turn(id, std::move(state), how, begun.error());
    co_return;
  }
  state.made.engine_pid = engine->pid;
  state.made.limits = terms.limits;
  state.made.event_log = {};
  state.made.event_log.append(tpm::kLaunchPcr, state.made.launch, log::kLaunchContent, document);
  co_await serve_orphans(id, supervision, state.nodes);
  log_line(LogLevel::Info,
           "instance " + id + " continues after a TPM Reset: engine pid " + std::to_string(engine->pid));
  become(id, Running{std::move(state.made), supervision, std::move(state.nodes)});
  spawn(executor_, "watch of an engine", watch_engine(id, supervision));
  publish("instance.reset", *registry_.find(id), how);
}

// None for what is over, or dies again and again.
Task<Manufactured> Instances::next_engine(InstanceRow row, Provisioned made,
                                          std::shared_ptr<Supervision> supervision, std::string document,
                                          EngineTerms terms) {
  const std::size_t deaths = count_death(*supervision);
  if (has_lost_container(*supervision)) co_return Error(ErrorCode::Unavailable, "its container has ended");
  if (made.placed && !terms.cgroup)
    co_return Error(ErrorCode::Conflict, "the keeper did not have its container's cgroup for another one");
  if (deaths > kMaxDeaths)
    co_return Error(ErrorCode::Conflict,
                    "more than " + std::to_string(kMaxDeaths) +
                        " of its engines died within 60 s; vtpmctl attach or create starts it again");
  asio::steady_timer pause(executor_, kPause * (deaths - 1));
  co_await pause.async_wait(kResume);
  co_return co_await resume(std::move(row), std::move(made.identity), std::move(document), std::move(terms));
}

// The reset is in the log and the engine watched; or the engine has ended.
Task<> Instances::begin_with(std::string id, std::string how, std::shared_ptr<Supervision> supervision,
                             Manufactured next) {
  const log::InstanceReset entry{now_ms(), id, how};
  const auto note = [this, entry, sequence = next.sequence] {
    return store_.reset_instance(entry, sequence);
  };
  const auto logged = co_await run_on(workers_.store, note);
  Result<> begun = logged ? watch(supervision->engine_end, next.engine->pidfd.get()) : logged.error();
  if (!begun) {
    const auto retire = [this, engine = next.engine] { return engines_.retire(*engine); };
    static_cast<void>(co_await end_engine(workers_, engines_, next.engine, retire));
    co_return begun;
  }
  supervision->engine = next.engine;
  Durable& durable = *registry_.find(id)->row.durable;
  durable.sequence = std::max(durable.sequence, next.sequence);
  co_return begun;
}

// There is nobody to serve any more; and an engine in the container's cgroup would keep the runtime from
// removing that.
asio::awaitable<void> Instances::stop_in_turn(std::string id, Resetting state, std::shared_ptr<Engine> next) {
  state.supervision->stop_watching();
  state.nodes.clear();
  if (next && next->placed) spawn(executor_, "end of an engine", clear_cgroup(next));
  co_await let_go(id);
  std::optional<std::uint64_t> sequence;
  if (next) {
    const auto stop = [this, next] { return engines_.stop(*next); };
    const auto stopped = co_await end_engine(workers_, engines_, next, stop);
    if (stopped) sequence = *stopped;
  }
  const auto recorded = co_await stopped(id, std::move(state.made), sequence, "container-ended");
  if (!recorded) log_line(LogLevel::Error, "instance " + id + ": " + recorded.error().context);
}

asio::awaitable<void> Instances::fail_in_turn(std::string id, Resetting state, std::string how, Error error) {
  state.supervision->stop_watching();
  state.nodes.clear();
  co_await let_go(id);  // their users get ENOTCONN
  const std::string reason = "its engine ended (" + how + "), and: " + error.context;
  log_line(LogLevel::Error, "instance " + id + " has failed: " + reason);
  // While vtpmd stops the next one starts it.
  const ErrorCode kind = stopping_ ? error.kind() : ErrorCode::Conflict;
  co_await cannot_start(id, std::move(state.made), Error(kind, reason));
}

// The nodes of the dead engine, as far as vtpmd has their descriptors. All together, and whatever time that
// takes within the bounds of a conversation: the engine is fresh, and nobody else uses it yet.
asio::awaitable<void> Instances::serve_orphans(std::string id, std::shared_ptr<Supervision> supervision,
                                               std::vector<Node>& nodes) {
  std::vector<std::uint8_t> gone;
  const auto lose = [&gone](Node& node, std::string_view why) {
    log_line(LogLevel::Warning, "the node " + node.path + " is gone: " + std::string(why));
    node.gone = true;
    node.channel.reset();
    gone.push_back(node.number);
  };
  std::vector<Node*> orphans;
  const auto copies = std::make_shared<std::vector<PeerFd>>();
  std::vector<ipc::EngineLink::Served> asked;
  for (Node& node : nodes) {
    if (node.gone) continue;
    PeerFd copy = node.channel.duplicate();
    if (!copy) {
      lose(node, "vtpmd has not its descriptor");
      continue;
    }
    asked.push_back({node.kind, copy.get(), next_channel(node)});
    copies->push_back(std::move(copy));
    orphans.push_back(&node);
  }
  const auto serve = [engine = supervision->engine, copies, asked] { return serve_all(*engine, asked); };
  const auto served = co_await run_on(workers_.engines, serve);
  if (!served) log_line(LogLevel::Warning, "instance " + id + ": " + served.error().context);
  // Of one that serves none, because it has died or was ended for it, the next one serves all.
  for (std::size_t i = 0; served && i < orphans.size(); ++i)
    if (const Result<>& outcome = served->at(i); !outcome) lose(*orphans[i], outcome.error().context);
  co_await drop_nodes(id, std::move(gone));
}

}  // namespace vtpm::supervisor
