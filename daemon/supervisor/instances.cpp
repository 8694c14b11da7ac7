// SPDX-License-Identifier: Apache-2.0
// An instance while it runs: served, measured, quoted. Its beginning is in instance_start.cpp, its end in
// instance_end.cpp.
#include "daemon/supervisor/instances.h"

#include "daemon/supervisor/clock.h"
#include "daemon/supervisor/nodes.h"
#include "daemon/supervisor/supervision.h"
#include "json/strict.h"

#include <fcntl.h>

#include <cerrno>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxNodes = 16;

// The reason of a durable one says what helps; an ephemeral TPM is lost with its engine.
Error not_running(const Instance& instance) {
  const std::string text = "instance " + instance.row.id + " is not running: ";
  if (const auto* failed = std::get_if<Failed>(&instance.state))
    return {ErrorCode::Conflict,
            text + failed->reason +
                (instance.row.durable ? "" : "; its TPM is lost: destroy it and create another")};
  if (std::holds_alternative<Stopped>(instance.state))
    return {ErrorCode::Conflict,
            text + "it is stopped; it starts with its container, or by vtpmctl attach or create"};
  return {ErrorCode::Busy, text + "it is " + std::string(state_name(instance.state))};
}

}  // namespace

Instances::Instances(asio::any_io_executor executor, Workers& workers, Engines& engines, Keeper& keeper,
                     Store& store, Registry& registry, EventBus& events, HostKey& host_key,
                     DurableEngines& durable, const EngineLimits& limits, std::uint64_t host_start)
    : executor_(std::move(executor)),
      workers_(workers),
      engines_(engines),
      keeper_(keeper),
      store_(store),
      registry_(registry),
      events_(events),
      host_key_(host_key),
      durable_(durable),
      limits_(limits),
      host_start_(host_start),
      keeper_end_(executor_),
      changed_(executor_, asio::steady_timer::time_point::max()),
      interval_(executor_) {}

asio::awaitable<void> Instances::wait_for_change() {
  co_await changed_.async_wait(kResume);
}

// What is between two states is waited for, but for an engine of which nobody knows when it answers.
asio::awaitable<void> Instances::settle(std::string id) {
  for (;;) {
    const Instance* instance = registry_.find(id);
    if (instance == nullptr || !is_between_states(instance->state) || silent_.contains(id)) co_return;
    co_await wait_for_change();
  }
}

// Nor does anybody wait for such an engine whose instance is to end. Left to the next vtpmd: Unavailable.
Task<> Instances::settle_to_end(std::string id) {
  for (;;) {
    const Instance* instance = registry_.find(id);
    if (instance == nullptr || !is_between_states(instance->state)) break;
    if (handing_over_ && silent_.contains(id))
      co_return Error(ErrorCode::Unavailable, "instance " + id + " is handed over; ask the next vtpmd");
    unwanted_.insert(id);
    co_await wait_for_change();
  }
  unwanted_.erase(id);
  co_return Result<>();
}

void Instances::become(const std::string& id, State state) {
  registry_.find(id)->state = std::move(state);
  changed_.cancel();
}

Result<Running*> Instances::running(const std::string& id) {
  Instance* instance = registry_.find(id);
  if (instance == nullptr || shown(*instance) == nullptr)
    return Error(ErrorCode::NotFound, "no instance " + id);
  if (silent_.contains(id))
    return Error(ErrorCode::Busy, "instance " + id + ": its engine does not answer; it may be frozen");
  auto* state = std::get_if<Running>(&instance->state);
  if (state == nullptr) return not_running(*instance);
  return state;
}

Task<> Instances::serve(std::string id, Node node, PeerFd channel) {
  VTPM_CO_TRY_VOID(co_await wake(id));
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  forget_dead_nodes(id);
  if (state->nodes.size() >= kMaxNodes)
    co_return Error(ErrorCode::Exhausted, "instance " + id + " has 16 nodes, the limit");
  const bool kept = registry_.find(id)->row.durable || node.backend == control::Backend::Socket;
  const std::uint8_t number = node.number = free_number(state->nodes);
  if (kept) {
    node.channel = channel.duplicate();
    if (!node.channel) co_return errno_error("a node's descriptor cannot be kept", errno);
  }
  const ipc::EngineLink::Served what{node.kind, channel.get(), first_channel(node)};
  VTPM_CO_TRY_VOID(co_await have_served(supervision->engine, what));
  VTPM_CO_TRY(state, running(id));
  state->nodes.push_back(std::move(node));
  if (kept) {
    // Before it is answered: the next vtpmd, too, must be able to end it, or have another engine serve it.
    co_await keep_node(id, number);
    co_await record_quietly(id);
  } else {
    spawn(executor_, "record of a node", record_quietly(id));
  }
  co_return Result<>();
}

Result<> Instances::forget_node(const std::string& id, std::string_view path) {
  VTPM_TRY(Running * state, running(id));
  auto forgotten = take_out(state->nodes, [&](const Node& node) { return node.path == path; });
  if (forgotten.empty())
    return Error(ErrorCode::NotFound, "instance " + id + " has no node at " + std::string(path));
  forget_nodes(id, std::move(forgotten));
  return {};
}

Task<> Instances::measure(std::string id, log::Sha256 digest, std::string description) {
  co_await settle(id);
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  if (state->made.event_log.events().size() >= log::kMaxEvents)
    co_return Error(ErrorCode::Exhausted, "instance " + id + " has " + std::to_string(log::kMaxEvents) +
                                              " records in its event log, the limit");
  const auto extend = [digest](ipc::EngineLink& link) {
    return identity::extend(link, tpm::kOperatorPcr, digest);
  };
  // Written down first: a vtpmd that takes the instance back sees by the PCR whether it was extended.
  const log::EventLog before = state->made.event_log;
  state->made.event_log.append(tpm::kOperatorPcr, digest, log::kStatementContent, std::move(description));
  const auto recorded = co_await record(id);
  Result<> extended = recorded;
  if (recorded) extended = co_await converse(workers_, supervision->engine, extend);
  VTPM_CO_TRY(state, running(id));
  if (!extended) {
    state->made.event_log = before;
    co_return extended;
  }
  publish("instance.measure", *registry_.find(id), "");
  co_return Result<>();
}

Task<QuotedInstance> Instances::quote(std::string id, log::Sha256 qualifying_data) {
  co_await settle(id);
  VTPM_CO_TRY(Running * state, running(id));
  const auto supervision = state->supervision;
  const auto turn = co_await supervision->turn.acquire();
  VTPM_CO_TRY(state, running(id));
  const auto sign = [ak = state->made.identity.ak_name, qualifying_data](ipc::EngineLink& link) {
    return identity::quote(link, ak, qualifying_data);
  };
  VTPM_CO_TRY(identity::InstanceQuote quote, co_await converse(workers_, supervision->engine, sign));
  VTPM_CO_TRY(state, running(id));
  const Provisioned& made = state->made;
  co_return QuotedInstance{std::move(quote), made.identity.ak_public, made.log_index, made.event_log};
}

void Instances::publish(std::string_view kind, const Instance& instance, std::string_view reason) {
  json::Value event{{"event", kind}, {"id", instance.row.id}, {"time", now_ms()}};
  if (instance.row.name) event["name"] = *instance.row.name;
  if (!reason.empty()) event["reason"] = reason;
  events_.publish(kind, instance.row.owner_uid, json::dump(event));
}

}  // namespace vtpm::supervisor
