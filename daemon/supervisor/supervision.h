// SPDX-License-Identifier: Apache-2.0
// An engine that serves an instance, what watches it, and how it is talked to: for the units of Instances
// (instances.cpp, instance_start.cpp, instance_end.cpp).
#pragma once

#include "daemon/supervisor/async.h"
#include "daemon/supervisor/engines.h"
#include "daemon/supervisor/registry.h"
#include "daemon/supervisor/workers.h"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <chrono>
#include <deque>

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

  std::shared_ptr<Engine> engine;  // a durable instance's is replaced when it died, by who has the turn
  AsyncLock turn;                  // one conversation at a time: a quote and its event log belong together
  Descriptor engine_end;
  Descriptor container_end;
  std::shared_ptr<const UniqueFd> cgroup;  // a durable instance's: to place its next engines (EngineTerms)
  std::deque<std::chrono::steady_clock::time_point> deaths;  // of this launch's engines, the recent ones
};

// A duplicate for the reactor, so that a watch may end before the pidfd does.
Result<> watch(Descriptor& descriptor, int pidfd);

// Waits for the end of the process whose pidfd is watched. False: it is no longer watched. The reactor may
// wake a new descriptor for what happened to a closed one before: only the pidfd itself says that it is over.
// Name the answer before it is tested: gcc 12 miscompiles a co_await in the condition of an if whose branch
// awaits with a temporary argument.
asio::awaitable<bool> process_ended(Descriptor& watched);

// What follows is for who has the engine's turn. An engine that broke a conversation off is of no further
// use, and killed: its end is noticed by its pidfd.

// Waits at most 5 s for a sign of life, with no thread: tenants may keep any number of engines from
// answering. Busy: the engine makes a key, or is frozen with its container, or the host is slow. It is not
// ended for that, and as long as it owes the answer nobody waits for it again.
Task<> wait_until_free(std::shared_ptr<Engine> engine);

// Has an engine serve a node once it is free for it. With no thread either: no engine's slowness keeps others
// from being attached. The descriptor is the caller's, who keeps it until then. Errors as wait_until_free()
// and EngineLink::serve.
Task<> have_served(std::shared_ptr<Engine> engine, ipc::EngineLink::Served node);

// Ends an engine, by `orderly` (Engines::retire or stop) on a worker; at once if it gives no sign of life.
template <class Orderly>
asio::awaitable<std::invoke_result_t<Orderly&>> end_engine(Workers& workers, Engines& engines,
                                                           std::shared_ptr<Engine> engine, Orderly orderly) {
  const Result<> free = co_await wait_until_free(engine);
  const bool silent = !free && free.error().kind() == ErrorCode::Busy;
  const auto end = [&engines, engine, orderly, silent, free]() -> std::invoke_result_t<Orderly&> {
    if (!silent) return orderly();
    engines.abandon(*engine);
    return free.error();
  };
  co_return co_await run_on(workers.endings, end);
}

// A short conversation with an engine that is free for it, on a worker. Busy: it is not, and it was asked
// nothing.
template <class Talk>
asio::awaitable<std::invoke_result_t<Talk&, ipc::EngineLink&>> converse(Workers& workers,
                                                                        std::shared_ptr<Engine> engine,
                                                                        Talk talk) {
  VTPM_CO_TRY_VOID(co_await wait_until_free(engine));
  const auto converse = [engine, talk]() -> std::invoke_result_t<Talk&, ipc::EngineLink&> {
    engine->begin_conversation(kFreeConversation);
    auto outcome = talk(*engine->link);
    if (!outcome && is_fatal_to_engine(outcome.error().kind())) engine->kill();
    return outcome;
  };
  co_return co_await run_on(workers.engines, converse);
}

}  // namespace vtpm::supervisor
