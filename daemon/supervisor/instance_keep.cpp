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
constexpr auto kFirstAnswer = 500ms;  // of an engine: then others have their turn, and it is asked again
constexpr auto kBetweenLooks = 200ms;
constexpr auto kBeforeSilent = 5s;   // until nobody waits any more for what is asked of its instance
constexpr auto kBeforeAnother = 1s;  // until it is tried again to give a keeper everything, or to watch it

// Waits until the engine has done what the dead vtpmd asked of it; the event log as its PCRs bear it out.
// Then it is told its limits, if they have changed.
Result<log::EventLog> join(Engine& engine, const log::EventLog& recorded,
                           const std::optional<EngineLimits>& changed) {
  if (has_ended(engine.pidfd.get()))
    return Error(ErrorCode::Unreachable, "its engine ended while no vtpmd ran");
  engine.link->set_deadline(after(kFirstAnswer));
  VTPM_TRY_VOID(engine.link->take_over());
  engine.begin_conversation();
  VTPM_TRY(const tpm::PcrValues pcrs,
           identity::read_pcrs(*engine.link, {tpm::kLaunchPcr, tpm::kOperatorPcr}));
  if (changed) VTPM_TRY_VOID(engine.link->set_limits(*changed));
  return borne_out(recorded, pcrs);
}

}  // namespace

Result<HeldInstance> Instances::copies_for_keeper(const std::string& id) const {
  const auto found = registry_.all().find(id);
  const auto* running = found == registry_.all().end() ? nullptr : std::get_if<Running>(&found->second.state);
  if (running == nullptr || !running->supervision->engine->link)
    return Error(ErrorCode::Conflict, "instance " + id + " is not running");
  HeldInstance copies;
  copies.id = id;
  copies.owner = found->second.row.owner_uid;
  VTPM_TRY(copies.control, running->supervision->engine->link->duplicate());
  copies.engine.reset(::fcntl(running->supervision->engine->pidfd.get(), F_DUPFD_CLOEXEC, 3));
  const int container = running->supervision->container_pidfd();
  if (container >= 0) copies.container.reset(::fcntl(container, F_DUPFD_CLOEXEC, 3));
  if (!copies.engine || (container >= 0 && !copies.container))
    return errno_error("a descriptor for the keeper", errno);
  if (const auto& cgroup = running->supervision->cgroup) {
    copies.cgroup.reset(::fcntl(cgroup->get(), F_DUPFD_CLOEXEC, 3));
    if (!copies.cgroup) return errno_error("a cgroup's descriptor for the keeper", errno);
  }
  for (const Node& node : running->nodes) {
    if (!node.channel) continue;
    UniqueFd copy(::fcntl(node.channel.get(), F_DUPFD_CLOEXEC, 3));
    if (!copy) return errno_error("a node's descriptor for the keeper", errno);
    copies.nodes.push_back({node.number, std::move(copy)});
  }
  return copies;
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
    ++taking_back_;
    spawn(executor_, "take-over of an instance", take_back_one(std::move(instance), std::move(*runtime)));
  }
  const auto until = std::chrono::steady_clock::now() + kBeforeServing;
  while (taking_back_ > 0 && !stopping_ && std::chrono::steady_clock::now() < until) {
    progress(taking_back_);
    asio::steady_timer pause(executor_, kBetweenReports);
    const auto look_again = [this](const boost::system::error_code& error) {
      if (!error) changed_.cancel();
    };
    pause.async_wait(look_again);
    co_await wait_for_change();
  }
  co_return taking_back_;
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
Task<> Instances::wait_for_answer(std::string id, std::shared_ptr<Engine> engine, int container) {
  const auto look = [engine]() -> Result<> {
    if (has_ended(engine->pidfd.get()))
      return Error(ErrorCode::Unreachable, "its engine ended before it answered");
    engine->link->set_deadline(after(0ms));
    return engine->link->take_over();
  };
  const auto silent_from = std::chrono::steady_clock::now() + kBeforeSilent;
  Result<> answer = Error(ErrorCode::Timeout, "its engine does not answer");
  while (!answer && answer.error().kind() == ErrorCode::Timeout && !stopping_) {
    asio::steady_timer pause(executor_, kBetweenLooks);
    co_await pause.async_wait(kResume);
    answer = co_await run_on(workers_.meters, look);
    if (answer) continue;
    if (container >= 0 && has_ended(container)) break;  // at once, if the engine is in its cgroup
    if (std::chrono::steady_clock::now() < silent_from) continue;
    if (unwanted_.contains(id)) break;
    if (!silent_.insert(id).second) continue;
    changed_.cancel();
    log_line(LogLevel::Warning, "instance " + id + ": its engine (pid " + std::to_string(engine->pid) +
                                    ") does not answer; it is taken back when it does");
  }
  silent_.erase(id);
  co_return answer;
}

asio::awaitable<void> Instances::take_back_one(LeftRunning left, Runtime runtime) {
  const std::string id = left.row.id;
  auto engine =
      std::make_shared<Engine>(Engine{std::make_unique<ipc::EngineLink>(std::move(left.held.control)),
                                      std::move(left.held.engine), runtime.made.engine_pid});
  engine->placed = runtime.made.placed;
  engines_.took_over(engine->pid);
  // An engine that was not told of limits is of a version that ends at the verb.
  std::optional<EngineLimits> changed;
  if (runtime.made.limits && *runtime.made.limits != limits_of(left.row)) changed = limits_of(left.row);
  const auto talk = [engine, recorded = runtime.made.event_log, changed] {
    return join(*engine, recorded, changed);
  };
  auto joined = co_await run_on(workers_.engines, talk);
  const bool at_once = joined.has_value();
  while (!joined && joined.error().kind() == ErrorCode::Timeout) {
    const auto answer = co_await wait_for_answer(id, engine, left.held.container.get());
    if (!answer) {
      joined = answer.error();
      break;
    }
    joined = co_await run_on(workers_.engines, talk);
  }
  if (!joined && handing_over_ && joined.error().kind() == ErrorCode::Timeout) {
    // Nothing of it was touched: the next vtpmd goes on to wait.
    become(id, Failed{std::move(runtime.made), joined.error().context, true, nullptr});
    --taking_back_;
    co_return;
  }
  if (joined) {
    runtime.made.event_log = std::move(*joined);
    if (changed) runtime.made.limits = changed;
  } else {
    // Its end is noticed as any engine's is.
    log_line(LogLevel::Error, "instance " + id + " cannot be taken back: " + joined.error().context);
    engine->kill();
  }
  auto of_none = put_back(runtime.nodes, std::move(left.held.nodes), workers_.disposal, left.row.owner_uid);
  co_await drop_nodes(id, std::move(of_none));
  Bonds bonds{std::move(left.held.container), {}};
  if (left.held.cgroup) bonds.cgroup = std::make_shared<UniqueFd>(std::move(left.held.cgroup));
  const auto taken =
      supervise(id, std::move(engine), std::move(runtime.made), std::move(runtime.nodes), std::move(bonds));
  if (!taken) co_await end_quietly(id, "engine-died");
  if (taken && changed) co_await record_quietly(id);
  if (taken && !at_once) co_await keep(id);  // the keeper may be another by now
  if (stopping_ && !handing_over_) co_await end_quietly(id, "supervisor-stopped");
  --taking_back_;
  changed_.cancel();
}

// Everything that is begun comes to its end; then nothing of what runs is touched any more.
asio::awaitable<void> Instances::hand_over() {
  stopping_ = handing_over_ = true;
  interval_.cancel();
  host_key_.give_up();  // an anchor that hangs must not keep the daemon
  const auto busy = [](const auto& pair) {
    return !std::holds_alternative<Running>(pair.second.state) &&
           !std::holds_alternative<Failed>(pair.second.state) &&
           !std::holds_alternative<Stopped>(pair.second.state);
  };
  while (std::any_of(registry_.all().begin(), registry_.all().end(), busy))
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
