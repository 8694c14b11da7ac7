// SPDX-License-Identifier: Apache-2.0
// How instances outlive their vtpmd: what is recorded of them, what the keeper holds, and how the next vtpmd
// takes them back.
#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/nodes.h"
#include "daemon/supervisor/runtime_text.h"
#include "daemon/supervisor/supervision.h"

#include <vtpm/os/process.h>
#include <vtpm/tpm/constants.h>

#include <fcntl.h>

#include <algorithm>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kBeforeServing = 5s;  // at most, until all engines have answered
constexpr auto kBetweenReports = 1s;
constexpr auto kFirstPause = 2ms;  // between two looks: for most have answered by then
constexpr auto kLongestPause = 200ms;
constexpr auto kBeforeSilent = 5s;   // until nobody waits any more for what is asked of its instance
constexpr auto kBeforeAnother = 1s;  // until it is tried again to give a keeper everything, or to watch it

// What is begun with an engine that has answered: the event log as its PCRs bear it out. Then it is told its
// limits, if they have changed.
Result<log::EventLog> join(Engine& engine, const log::EventLog& recorded,
                           const std::optional<EngineLimits>& changed) {
  engine.begin_conversation(kFreeConversation);
  VTPM_TRY(const tpm::PcrValues pcrs,
           identity::read_pcrs(*engine.link, {tpm::kLaunchPcr, tpm::kOperatorPcr}));
  if (changed) VTPM_TRY_VOID(engine.link->set_limits(*changed));
  return borne_out(recorded, pcrs);
}

Result<UniqueFd> copy_of(int fd, std::string_view what) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("the keeper's descriptor of " + std::string(what), errno);
  return copy;
}

Result<HeldInstance> copies(const InstanceRow& row, const Engine& engine, int container,
                            const std::shared_ptr<const UniqueFd>& cgroup, const std::vector<Node>& nodes) {
  if (!engine.link) return Error(ErrorCode::Conflict, "instance " + row.id + " ends");
  HeldInstance held;
  held.id = row.id;
  held.owner = row.owner_uid;
  VTPM_TRY(held.control, engine.link->duplicate());
  VTPM_TRY(held.engine, copy_of(engine.pidfd.get(), "an engine"));
  if (container >= 0) {
    VTPM_TRY(held.container, copy_of(container, "a container"));
  }
  if (cgroup && *cgroup) {
    VTPM_TRY(held.cgroup, copy_of(cgroup->get(), "a cgroup"));
  }
  for (const Node& node : nodes) {
    if (!node.channel) continue;
    VTPM_TRY(UniqueFd channel, copy_of(node.channel.get(), "a node"));
    held.nodes.push_back({node.number, std::move(channel)});
  }
  return held;
}

}  // namespace

// An engine that is taken back, and what its vtpmd left with it. The keeper goes on to have it.
struct Instances::Returning {
  std::shared_ptr<Engine> engine;
  Runtime runtime;
  Bonds bonds;
  std::vector<std::uint8_t> of_none;  // numbers of what the keeper has and no node is known by
};

Result<HeldInstance> Instances::copies_for_keeper(const std::string& id) const {
  const auto found = registry_.all().find(id);
  if (found == registry_.all().end()) return Error(ErrorCode::NotFound, "no instance " + id);
  const InstanceRow& row = found->second.row;
  if (const auto late = returning_.find(id); late != returning_.end()) {
    const Returning& back = *late->second;
    return copies(row, *back.engine, back.bonds.container_process.get(), back.bonds.cgroup,
                  back.runtime.nodes);
  }
  const auto* running = std::get_if<Running>(&found->second.state);
  if (running == nullptr) return Error(ErrorCode::Conflict, "instance " + id + " is not running");
  Supervision& supervision = *running->supervision;
  return copies(row, *supervision.engine, supervision.container_pidfd(), supervision.cgroup, running->nodes);
}

// An error is not the instance's: it runs, but would end with this vtpmd. A keeper that died meanwhile gets
// everything again from watch_keeper().
asio::awaitable<void> Instances::keep(std::string id) {
  auto copies = copies_for_keeper(id);
  Result<> kept;
  if (copies) {
    const auto held = std::make_shared<HeldInstance>(std::move(*copies));
    const auto hold = [this, held] { return keeper_.hold(*held); };
    kept = co_await run_on(workers_.keeper, hold);
  } else {
    kept = copies.error();
  }
  if (!kept)
    log_line(LogLevel::Warning, "instance " + id + " would end with this vtpmd: " + kept.error().context);
}

// Before its engine is to end, which it does not while the keeper has its socket.
asio::awaitable<void> Instances::let_go(std::string id) {
  const auto release = [this, id] { return keeper_.release(id); };
  const auto released = co_await run_on(workers_.keeper, release);
  // A keeper that is gone holds nothing.
  if (!released && released.error().kind() != ErrorCode::Unreachable)
    log_line(LogLevel::Warning, "instance " + id + ": " + released.error().context);
}

Task<> Instances::record(std::string id) {
  Instance* instance = registry_.find(id);
  const auto* running = instance == nullptr ? nullptr : std::get_if<Running>(&instance->state);
  if (running == nullptr) co_return Result<>();
  const auto write = [this, id, text = runtime_text(running->made, running->nodes)] {
    return store_.set_runtime(id, text);
  };
  co_return co_await run_on(workers_.store, write);
}

asio::awaitable<void> Instances::record_quietly(std::string id) {
  const auto recorded = co_await record(id);
  if (!recorded)
    log_line(LogLevel::Warning, "instance " + id + ": not recorded: " + recorded.error().context);
}

// Whether it is gone; false: it is no longer watched. As process_ended(), for a connection.
asio::awaitable<bool> Instances::keeper_ended() {
  for (;;) {
    const auto [error] = co_await keeper_end_.async_wait(Descriptor::wait_error, kResume);
    if (error || stopping_ || !keeper_end_.is_open()) co_return false;
    if (!has_hung_up(keeper_end_.native_handle())) continue;
    stop_watching_keeper();
    co_return true;
  }
}

// On its worker, which alone touches the connection.
Task<> Instances::begin_watch_of_keeper() {
  const auto duplicate = [this] { return keeper_.watch(); };
  VTPM_CO_TRY(UniqueFd end, co_await run_on(workers_.keeper, duplicate));
  if (stopping_) co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  boost::system::error_code error;
  keeper_end_.assign(end.get(), error);
  if (error) co_return errno_error("the keeper cannot be watched", error.value());
  (void)end.release();  // the descriptor's now
  co_return Result<>();
}

asio::awaitable<void> Instances::watch_keeper(Result<> begun) {
  for (; !stopping_; begun = co_await begin_watch_of_keeper()) {
    if (begun) {
      const bool ended = co_await keeper_ended();
      if (!ended) co_return;
      log_line(LogLevel::Warning, "the keeper is gone, or its connection is: it gets everything again");
    }
    const auto all = std::make_shared<std::vector<HeldInstance>>();
    for (const auto& [id, instance] : registry_.all()) {
      auto copies = copies_for_keeper(id);
      if (copies) all->push_back(std::move(*copies));
    }
    const auto restore = [this, all] { return keeper_.restore(*all); };
    const auto restored = co_await run_on(workers_.keeper, restore);
    if (restored) log_line(LogLevel::Info, "the keeper has everything again");
    if (restored && begun) continue;
    if (!restored)
      log_line(LogLevel::Error,
               "no keeper, instances would end with this vtpmd: " + restored.error().context);
    asio::steady_timer pause(executor_, kBeforeAnother);
    co_await pause.async_wait(kResume);
  }
}

// All are known at once, as between two states: who asks for one waits for it, the others are not held up by
// an engine that does not answer.
asio::awaitable<std::size_t> Instances::take_back(std::vector<LeftRunning> left,
                                                  std::function<void(std::size_t)> progress) {
  for (LeftRunning& instance : left) {
    auto runtime = parse_runtime(instance.runtime, instance.log_index);
    const std::string id = instance.row.id;
    const Result<> known =
        runtime ? registry_.add(instance.row, SIZE_MAX) : Result<>(std::move(runtime).error());
    if (!known) {
      log_line(LogLevel::Error, "instance " + id + " cannot be taken back: " + known.error().context);
      spawn(executor_, "end of an instance", give_back(id));
      continue;
    }
    become(id, Starting{runtime->made});
    const auto back = std::make_shared<Returning>(come_back(std::move(instance), std::move(*runtime)));
    returning_.emplace(id, back);
    spawn(executor_, "take-over of an instance", take_back_one(id, back));
  }
  const auto until = std::chrono::steady_clock::now() + kBeforeServing;
  while (!returning_.empty() && !stopping_ && std::chrono::steady_clock::now() < until) {
    progress(returning_.size());
    asio::steady_timer pause(executor_, kBetweenReports);
    const auto look_again = [this](const boost::system::error_code& error) {
      if (!error) changed_.cancel();
    };
    pause.async_wait(look_again);
    co_await wait_for_change();
  }
  co_return returning_.size();
}

Instances::Returning Instances::come_back(LeftRunning left, Runtime runtime) {
  HeldInstance& held = left.held;
  Returning back{
      std::make_shared<Engine>(Engine{std::make_unique<ipc::EngineLink>(std::move(held.control)),
                                      std::move(held.engine), runtime.made.engine_pid, runtime.made.placed}),
      std::move(runtime),
      {std::move(held.container), {}},
      {}};
  engines_.took_over(back.engine->pid);
  back.of_none = put_back(back.runtime.nodes, std::move(held.nodes), workers_.disposal, left.row.owner_uid);
  if (held.cgroup) back.bonds.cgroup = std::make_shared<UniqueFd>(std::move(held.cgroup));
  return back;
}

asio::awaitable<void> Instances::give_back(std::string id) {
  co_await let_go(id);
  const log::InstanceDestroy entry{now_ms(), id, "supervisor-restarted"};
  const auto end = [this, entry] { return store_.end_instance(entry, "destroyed"); };
  const auto logged = co_await run_on(workers_.store, end);
  if (!logged) log_line(LogLevel::Error, "instance " + id + ": not logged: " + logged.error().context);
}

// An engine that makes a key, or is frozen together with its container, answers when it can. Meanwhile no
// worker waits for it. Ends with its answer or its end, with its container, or when it is not wanted any
// more.
Task<> Instances::wait_for_answer(std::string id, std::shared_ptr<Returning> back) {
  const auto look = [engine = back->engine]() -> Result<> {
    if (has_ended(engine->pidfd.get()))
      return Error(ErrorCode::Unreachable, "its engine ended before it answered");
    engine->link->set_deadline(after(0ms));
    return engine->link->take_over();
  };
  const int container = back->bonds.container_process.get();
  const auto silent_from = std::chrono::steady_clock::now() + kBeforeSilent;
  std::chrono::milliseconds wait = kFirstPause;
  for (;; wait = std::min<std::chrono::milliseconds>(2 * wait, kLongestPause)) {
    const Result<> answer = co_await run_on(workers_.meters, look);
    if (answer || answer.error().kind() != ErrorCode::Timeout) co_return answer;
    if (stopping_ && wait >= kLongestPause) co_return answer;      // it had the time, if it is free
    if (container >= 0 && has_ended(container)) co_return answer;  // at once, if the engine is in its cgroup
    if (std::chrono::steady_clock::now() >= silent_from) {
      if (unwanted_.contains(id)) co_return answer;
      note_silence(id, back->engine->pid);
    }
    asio::steady_timer pause(executor_, wait);
    co_await pause.async_wait(kResume);
  }
}

void Instances::note_silence(const std::string& id, pid_t engine) {
  if (!silent_.insert(id).second) return;
  changed_.cancel();
  log_line(LogLevel::Warning, "instance " + id + ": its engine (pid " + std::to_string(engine) +
                                  ") does not answer; it is taken back when it does");
}

// One that answers once is free for the rest, as in every conversation.
Task<log::EventLog> Instances::rejoin(std::string id, std::shared_ptr<Returning> back,
                                      std::optional<EngineLimits> changed) {
  VTPM_CO_TRY_VOID(co_await wait_for_answer(id, back));
  const auto talk = [back, changed] { return join(*back->engine, back->runtime.made.event_log, changed); };
  co_return co_await run_on(workers_.engines, talk);
}

asio::awaitable<void> Instances::take_back_one(std::string id, std::shared_ptr<Returning> back) {
  // An engine that was not told of limits is of a version that ends at the verb.
  Provisioned& made = back->runtime.made;
  std::optional<EngineLimits> changed = limits_of(registry_.find(id)->row);
  if (!made.limits || *made.limits == *changed) changed.reset();
  auto joined = co_await rejoin(id, back, changed);
  if (!joined && handing_over_ && joined.error().kind() == ErrorCode::Timeout) {
    // The next vtpmd goes on to wait. Nobody does so here.
    silent_.insert(id);
    returning_.erase(id);
    changed_.cancel();
    co_return;
  }
  if (joined) {
    made.event_log = std::move(*joined);
    if (changed) made.limits = changed;
  } else {
    // Its end is noticed as any engine's is.
    log_line(LogLevel::Error, "instance " + id + " cannot be taken back: " + joined.error().context);
    back->engine->kill();
  }
  co_await drop_nodes(id, std::move(back->of_none));
  silent_.erase(id);
  returning_.erase(id);
  const auto taken =
      supervise(id, back->engine, std::move(made), std::move(back->runtime.nodes), std::move(back->bonds));
  changed_.cancel();
  if (!taken) co_await end_quietly(id, "engine-died");
  if (taken && changed) co_await record_quietly(id);
  if (stopping_ && !handing_over_) co_await end_quietly(id, "supervisor-stopped");
}

// Everything that is begun comes to its end, but for engines that have not answered yet; then nothing of what
// runs is touched any more.
asio::awaitable<void> Instances::hand_over() {
  stopping_ = handing_over_ = true;
  interval_.cancel();
  host_key_.give_up();  // an anchor that hangs must not keep the daemon
  const auto busy = [this](const auto& pair) {
    return !std::holds_alternative<Running>(pair.second.state) &&
           !std::holds_alternative<Failed>(pair.second.state) &&
           !std::holds_alternative<Stopped>(pair.second.state) && !silent_.contains(pair.first);
  };
  while (!returning_.empty() || std::any_of(registry_.all().begin(), registry_.all().end(), busy))
    co_await wait_for_change();
  co_await anchor_states();  // nobody can, until the next vtpmd has started
  std::vector<std::shared_ptr<Supervision>> all;
  for (const auto& [id, instance] : registry_.all()) {
    if (const auto* running = std::get_if<Running>(&instance.state)) all.push_back(running->supervision);
    const auto* failed = std::get_if<Failed>(&instance.state);
    if (failed != nullptr && failed->supervision) all.push_back(failed->supervision);
  }
  for (const auto& supervision : all) {
    const auto turn = co_await supervision->turn.acquire();
    supervision->stop_watching();
  }
  stop_watching_keeper();
}

asio::awaitable<void> Instances::release_keeper() {
  stop_watching_keeper();
  const auto quit = [this] { return keeper_.quit(); };
  const auto ended = co_await run_on(workers_.keeper, quit);
  if (!ended && ended.error().kind() != ErrorCode::Unreachable)
    log_line(LogLevel::Warning, "the keeper is not ended: " + ended.error().context);
}

void Instances::stop_watching_keeper() {
  boost::system::error_code ignored;
  keeper_end_.close(ignored);
}

}  // namespace vtpm::supervisor
