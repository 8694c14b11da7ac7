// SPDX-License-Identifier: Apache-2.0
// An engine that serves an instance, what watches it, and how it is talked to: for the units of Instances
// (instances.cpp, instance_start.cpp, instance_end.cpp).
#pragma once

#include "daemon/supervisor/async.h"
#include "daemon/supervisor/engines.h"
#include "daemon/supervisor/registry.h"

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

// A short conversation with an engine that is free for it. Busy: it is not, and it was asked nothing. One
// that broke the conversation off is of no further use: its end is noticed by its pidfd.
template <class Talk>
std::invoke_result_t<Talk&, ipc::EngineLink&> converse(Engine& engine, Talk talk) {
  VTPM_TRY_VOID(wait_until_free(engine));
  engine.begin_conversation(kFreeConversation);
  auto outcome = talk(*engine.link);
  if (!outcome && is_fatal_to_engine(outcome.error().kind())) engine.kill();
  return outcome;
}

}  // namespace vtpm::supervisor
