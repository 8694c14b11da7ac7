// SPDX-License-Identifier: Apache-2.0
// The life of an instance: made, served, measured, quoted, destroyed. One thread; each call suspends while
// workers block.
#pragma once

#include "daemon/supervisor/async.h"
#include "daemon/supervisor/engines.h"
#include "daemon/supervisor/events.h"
#include "daemon/supervisor/keeper.h"
#include "daemon/supervisor/registry.h"
#include "daemon/supervisor/workers.h"

#include <boost/asio/posix/stream_descriptor.hpp>

#include <functional>

namespace vtpm::supervisor {

// What a peer asks for.
struct Order {
  uid_t owner = 0;        // the peer's, by the kernel
  std::size_t quota = 0;  // of instances that the owner may have
  std::optional<std::string> name;
  std::optional<std::string> container;
  std::optional<std::string> image;
  std::optional<std::string> config;
  UniqueFd container_process;  // pidfd: the instance ends with it. Empty: bound to nothing
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
  // `host_start`: index of this daemon's host.start entry.
  Instances(asio::any_io_executor executor, Workers& workers, Engines& engines, Keeper& keeper, Store& store,
            Registry& registry, EventBus& events, std::uint64_t host_start);

  // Takes living engines back, before anything is served. One that has ended or does not answer becomes a
  // failed instance. `progress` is told from time to time how many are left.
  asio::awaitable<void> take_back(std::vector<LeftRunning> left, std::function<void(std::size_t)> progress);
  // Starts another keeper when it is gone. Until stop() or hand_over().
  asio::awaitable<void> watch_keeper();

  // Returns the id once the instance.create entry is committed. Errors as Registry::add; Unavailable while
  // the daemon stops.
  Task<std::string> create(Order order);
  // Serves tenants on one more /dev/fuse fd. No running instance: NotFound or Conflict. At most 16 nodes.
  Task<> serve(std::string id, Node node, UniqueFd fuse);
  // Nothing served at that path: NotFound.
  Result<> forget_node(const std::string& id, std::string_view path);
  // Orderly end; the reason goes into the log. Not there (any more): NotFound.
  Task<> destroy(std::string id, std::string reason);
  // Destroys the instances of `owner` that are bound to the container. None is not an error.
  Task<> destroy_container(std::string container, uid_t owner);
  // Extends the operator's PCR and writes the event log. It has log::kMaxEvents records: Exhausted.
  Task<> measure(std::string id, log::Sha256 digest, std::string description);
  Task<QuotedInstance> quote(std::string id, log::Sha256 qualifying_data);
  // Refuses new instances, destroys all, and waits for those in the making.
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

 private:
  asio::awaitable<void> wait_for_change();
  bool is_leaving(uid_t owner, const std::optional<std::string>& name,
                  const std::optional<std::string>& container) const;
  Task<> make_way(uid_t owner, std::optional<std::string> name, std::optional<std::string> container);
  Task<std::uint64_t> commit(const InstanceRow& row, const Manufactured& made, const log::Sha256& launch,
                             std::string runtime);
  // An error: it runs, but one of the processes cannot be watched.
  Result<> start(const std::string& id, Manufactured made, Provisioned provisioned,
                 UniqueFd container_process);
  Result<> supervise(const std::string& id, std::shared_ptr<Engine> engine, Provisioned made,
                     std::vector<Node> nodes, UniqueFd container_process);
  // Outliving this vtpmd (instance_keep.cpp).
  Result<HeldInstance> copies_for_keeper(const std::string& id) const;
  asio::awaitable<void> keep(std::string id);
  asio::awaitable<void> let_go(std::string id);
  Task<> record(std::string id);
  asio::awaitable<void> record_quietly(std::string id);
  asio::awaitable<void> take_back_one(LeftRunning left);
  void stop_watching_keeper();
  asio::awaitable<void> watch_engine(std::string id, std::shared_ptr<Supervision> supervision);
  asio::awaitable<void> watch_container(std::string id, std::shared_ptr<Supervision> supervision);
  asio::awaitable<void> engine_died(std::string id, pid_t pid);
  asio::awaitable<void> destroy_quietly(std::string id, std::string reason);
  Task<> end_running(std::string id, std::string reason);
  Task<> end_failed(std::string id, std::string reason);
  void removed(const std::string& id, std::string_view reason);
  Result<Running*> running(const std::string& id);
  void publish(std::string_view kind, const Instance& instance, std::string_view reason);

  asio::any_io_executor executor_;
  Workers& workers_;
  Engines& engines_;
  Keeper& keeper_;
  Store& store_;
  Registry& registry_;
  EventBus& events_;
  std::uint64_t host_start_;
  Counters counters_;
  bool stopping_ = false;
  std::size_t taking_back_ = 0;
  asio::posix::stream_descriptor keeper_end_;
  asio::steady_timer changed_;  // cancelled when an instance was removed
};

}  // namespace vtpm::supervisor
