// SPDX-License-Identifier: Apache-2.0
// The life of an instance: made, served, measured, quoted, destroyed; a durable one also stopped and started
// again. One thread; each call suspends while workers block.
#pragma once

#include "daemon/supervisor/async.h"
#include "daemon/supervisor/durable_engines.h"
#include "daemon/supervisor/events.h"
#include "daemon/supervisor/host_key.h"
#include "daemon/supervisor/keeper.h"
#include "daemon/supervisor/limits.h"
#include "daemon/supervisor/registry.h"
#include "daemon/supervisor/runtime_text.h"
#include "daemon/supervisor/workers.h"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <functional>
#include <set>

namespace vtpm::supervisor {

// What a start of an instance is measured with, and bound to.
struct LaunchedFor {
  std::optional<std::string> container;
  std::optional<std::string> image;
  std::optional<std::string> config;
  UniqueFd container_process;                   // pidfd: the instance ends with it. Empty: bound to nothing
  std::shared_ptr<const UniqueFd> cgroup = {};  // EngineTerms; of what has a container_process
};

// What a peer asks for.
struct Order {
  uid_t owner = 0;        // the peer's, by the kernel
  std::size_t quota = 0;  // of instances that the owner may have
  std::optional<std::string> name;
  bool durable = false;
  LimitOrder limits;  // more than the defaults only by an operator
  LaunchedFor launch;
};

struct QuotedInstance {
  identity::InstanceQuote quote;
  Bytes ak_public;
  std::uint64_t log_index;
  log::EventLog event_log;  // as it was when the TPM signed
};

// What an earlier vtpmd has left running, and what the keeper has of it.
struct LeftRunning {
  InstanceRow row;
  std::uint64_t log_index;
  std::string runtime;  // runtime_text.h
  HeldInstance held;
};

class Instances {
 public:
  // `limits`: of instances for which no others were set. `host_start`: index of this daemon's host.start
  // entry.
  Instances(asio::any_io_executor executor, Workers& workers, Engines& engines, Keeper& keeper, Store& store,
            Registry& registry, EventBus& events, HostKey& host_key, DurableEngines& durable,
            const EngineLimits& limits, std::uint64_t host_start);

  // Takes living engines back. One that has ended becomes a failed instance, or is reset. `progress` is told
  // each second how many are left. Returns, after 5 s at most, how many still are: those are between two
  // states until their engines answer, which may be never: who asks for them gets Busy, and who ends them
  // ends the wait.
  asio::awaitable<std::size_t> take_back(std::vector<LeftRunning> left,
                                         std::function<void(std::size_t)> progress);
  // Before anything is served: from here on it is noticed when the connection to the keeper is lost.
  Task<> begin_watch_of_keeper();
  // `begun`: what that returned. Connects to the keeper again when the connection is lost; starts another
  // when it is gone. Until stop() or hand_over().
  asio::awaitable<void> watch_keeper(Result<> begun);

  // The durable instances of earlier vtpmds, before anything else.
  void load(std::vector<StoredInstance> stored);
  // Starts those of them that belong to no container, and from then on anchors what durable instances have
  // committed in the log, now and every `interval`. Until stop() or hand_over().
  asio::awaitable<void> keep_durable(std::chrono::seconds interval);

  // What the engines of those of the instances that run tell of themselves, as far as they do so in time:
  // within 2 s, for all together.
  using Statuses = std::map<std::string, ipc::EngineStatus>;
  asio::awaitable<Statuses> statuses(std::vector<std::string> ids);

  // Returns the id once the instance.create entry is committed. A durable instance of that owner and name
  // that is stopped is started again, with this launch measured; one without a name has its container's id
  // for it. Errors as Registry::add and check_order; Conflict when it runs; Corrupt when its state is
  // damaged; Unavailable while the daemon stops.
  Task<std::string> create(Order order);
  // Serves tenants on one more descriptor, which is what node.backend says. A durable instance that is
  // stopped is started for it. No running instance: NotFound or Conflict. At most 16 nodes.
  Task<> serve(std::string id, Node node, PeerFd channel);
  // Nothing served at that path: NotFound.
  Result<> forget_node(const std::string& id, std::string_view path);
  // Orderly end; the reason goes into the log. A durable instance's slot files are removed after that. Not
  // there (any more): NotFound.
  Task<> destroy(std::string id, std::string reason);
  // What it ran for is over: a durable instance is stopped, another destroyed.
  Task<> end(std::string id, std::string reason);
  // Ends the instances of `owner` that are bound to the container. None is not an error.
  Task<> end_container(std::string container, uid_t owner);
  // Extends the operator's PCR and writes the event log. It has log::kMaxEvents records: Exhausted.
  Task<> measure(std::string id, log::Sha256 digest, std::string description);
  Task<QuotedInstance> quote(std::string id, log::Sha256 qualifying_data);
  // Refuses new instances, ends all, and waits for those in the making.
  asio::awaitable<void> stop();
  // Refuses new instances and waits for what is begun; running ones are left to the keeper and the next
  // vtpmd.
  asio::awaitable<void> hand_over();
  // After stop(): ends the keeper.
  asio::awaitable<void> release_keeper();

  struct Counters {
    std::uint64_t created = 0;
    std::uint64_t destroyed = 0;
    std::uint64_t failed = 0;
  };
  const Counters& counters() const noexcept { return counters_; }
  // What the instance's tenants may use from its next start on; Provisioned has what its engine was told.
  EngineLimits limits_of(const InstanceRow& row) const noexcept { return effective(limits_, row.limits); }
  const SlotFiles& slot_files() const noexcept { return durable_.files(); }

 private:
  // To the container: LaunchedFor has them, and the keeper.
  struct Bonds {
    UniqueFd container_process;
    std::shared_ptr<const UniqueFd> cgroup;
  };
  struct Survey;
  asio::awaitable<void> ask_status(std::string id, std::shared_ptr<Survey> survey);
  asio::awaitable<void> wait_for_change();
  asio::awaitable<void> settle(std::string id);
  Task<> settle_to_end(std::string id);
  std::optional<std::string> leaving(const Order& order) const;
  Task<> wait_for_leaving(const Order& order);
  Result<std::vector<std::string>> over(const Order& order) const;
  Task<> make_way(const Order& order);
  Result<std::optional<std::string>> known_durable(const Order& order) const;
  Task<std::string> create_new(Order order);
  Task<Manufactured> make(std::string id, bool durable, std::string document, EngineTerms terms);
  Task<std::uint64_t> commit(InstanceRow row, const Manufactured& made, const log::Sha256& launch,
                             std::string runtime);
  asio::awaitable<void> discard(std::string id, std::shared_ptr<Engine> engine);
  // Durable instances (instance_durable.cpp, instance_reset.cpp).
  Task<std::string> start_again(std::string id, LaunchedFor launch, LimitOrder limits = {});
  Task<Manufactured> resume(InstanceRow row, identity::Identity identity, std::string document,
                            EngineTerms terms);
  Task<std::uint64_t> commit_restart(InstanceRow row, const Manufactured& made, const log::Sha256& launch,
                                     std::string runtime);
  asio::awaitable<void> cannot_start(std::string id, Provisioned made, Error error);
  void fail_all(const Error& error);
  asio::awaitable<void> start_quietly(std::string id);
  asio::awaitable<void> anchor_states();
  Task<> wake(const std::string& id);
  Task<> stop_running(std::string id, std::string reason);
  Task<> stopped(std::string id, Provisioned made, std::optional<std::uint64_t> sequence, std::string reason);
  Task<> destroy_stored(std::string id, std::string reason);
  asio::awaitable<void> remove_files(std::string id);
  bool keys_in_use() const;
  asio::awaitable<void> reset(std::string id, pid_t pid);
  asio::awaitable<void> reset_in_turn(std::string id, std::string how);
  Task<Manufactured> next_engine(InstanceRow row, Provisioned made, std::shared_ptr<Supervision> supervision,
                                 std::string document, EngineTerms terms);
  Task<> begin_with(std::string id, std::string how, std::shared_ptr<Supervision> supervision,
                    Manufactured next);
  asio::awaitable<void> stop_in_turn(std::string id, Resetting state, std::shared_ptr<Engine> next);
  asio::awaitable<void> fail_in_turn(std::string id, Resetting state, std::string how, Error error);
  asio::awaitable<void> serve_orphans(std::string id, std::shared_ptr<Supervision> supervision,
                                      std::vector<Node>& nodes);
  // An error: it runs, but one of the processes cannot be watched.
  Result<> start(const std::string& id, Manufactured made, Provisioned provisioned, Bonds bonds);
  Result<> supervise(const std::string& id, std::shared_ptr<Engine> engine, Provisioned made,
                     std::vector<Node> nodes, Bonds bonds);
  // Outliving this vtpmd (instance_keep.cpp).
  Result<HeldInstance> copies_for_keeper(const std::string& id) const;
  asio::awaitable<void> keep(std::string id);
  asio::awaitable<void> let_go(std::string id);
  // Descriptors of nodes (instance_nodes.cpp).
  asio::awaitable<void> keep_node(std::string id, std::uint8_t number);
  asio::awaitable<void> drop_nodes(std::string id, std::vector<std::uint8_t> numbers);
  void forget_nodes(const std::string& id, std::vector<std::uint8_t> numbers);
  void forget_dead_nodes(const std::string& id);
  Task<> record(std::string id);
  asio::awaitable<void> record_quietly(std::string id);
  struct Returning;
  Returning come_back(LeftRunning left, Runtime runtime);
  Task<> wait_for_answer(std::string id, std::shared_ptr<Returning> back);
  void note_silence(const std::string& id, pid_t engine);
  Task<log::EventLog> rejoin(std::string id, std::shared_ptr<Returning> back,
                             std::optional<EngineLimits> changed);
  asio::awaitable<void> take_back_one(std::string id, std::shared_ptr<Returning> back);
  asio::awaitable<void> give_back(std::string id);
  asio::awaitable<bool> keeper_ended();
  void stop_watching_keeper();
  asio::awaitable<void> watch_engine(std::string id, std::shared_ptr<Supervision> supervision);
  asio::awaitable<void> clear_cgroup(std::shared_ptr<Engine> engine);
  asio::awaitable<void> watch_container(std::string id, std::shared_ptr<Supervision> supervision);
  asio::awaitable<void> engine_died(std::string id, pid_t pid);
  asio::awaitable<void> end_quietly(std::string id, std::string reason);
  Task<> end_running(std::string id, std::string reason);
  Task<> end_failed(std::string id, std::string reason);
  void removed(const std::string& id, std::string_view reason);
  Result<Running*> running(const std::string& id);
  void become(const std::string& id, State state);
  void publish(std::string_view kind, const Instance& instance, std::string_view reason);

  asio::any_io_executor executor_;
  Workers& workers_;
  Engines& engines_;
  Keeper& keeper_;
  Store& store_;
  Registry& registry_;
  EventBus& events_;
  HostKey& host_key_;
  DurableEngines& durable_;
  const EngineLimits limits_;
  std::uint64_t host_start_;
  Counters counters_;
  bool stopping_ = false;
  bool handing_over_ = false;  // stopping_, and what runs is left to the next vtpmd
  std::map<std::string, std::shared_ptr<Returning>> returning_;  // their engines are taken back
  std::set<std::string> silent_;                                 // of those: nobody waits for them
  std::set<std::string> unwanted_;                               // whose end is waited for
  asio::posix::stream_descriptor keeper_end_;
  asio::steady_timer changed_;   // cancelled when an instance was removed or changed its state
  asio::steady_timer interval_;  // between two anchorings of the states; cancelled by stop()
};

}  // namespace vtpm::supervisor
