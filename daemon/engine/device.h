// SPDX-License-Identifier: Apache-2.0
// The TPM as its clients share it: each has a space of the resource manager, the commands of all wait in one
// queue, and one of them runs at a time.
#pragma once

#include "daemon/engine/cpu_time.h"
#include "daemon/engine/fair_queue.h"
#include "daemon/engine/long_command.h"
#include "daemon/engine/quota.h"
#include "daemon/engine/tpm.h"

#include <vtpm/control/attach.h>
#include <vtpm/space/resource_manager.h>

#include <map>
#include <optional>

namespace vtpm::engine {

using control::NodeKind;
using space::SpaceId;

// Who gave a command: an open file or a connection.
class Client {
 public:
  virtual ~Client() = default;
  // Its command has run.
  virtual void answered(Bytes response) = 0;
  // Its command was dropped: the TPM is off, or of no further use.
  virtual void failed() = 0;
};

class Device {
 public:
  using Time = FairQueue::Time;

  // The TPM is borrowed. Nothing is asked of it before its first power-on.
  explicit Device(Tpm& tpm);
  // Who looks at the clients while a command runs long.
  void watch(LongCommand::Look look, void* context) noexcept;

  // What the clients may use from now on; until then: as much as there is.
  void set_limits(const ipc::EngineLimits& limits);

  // A client's space. A managed node has a new one for each, at most space::Limits::spaces (Exhausted); the
  // raw nodes have one for all, and one client at a time (Busy).
  Result<SpaceId> open(NodeKind kind);
  // Whether open() has room now.
  bool has_room(NodeKind kind) const;
  // The client is gone, and its command with it.
  void close(SpaceId space);

  // Queues a command. Nothing in it is trusted: a malformed one waits its turn and counts as any other. One
  // at a time for each space; `client` is borrowed until it is answered, or its command withdrawn.
  void submit(SpaceId space, Client& client, Bytes command, Time now);
  // Drops the space's command, unless it has run.
  void withdraw(SpaceId space);

  // Runs the command whose turn it is, if there is one and the quota permits one now, and tells its client.
  // When to call again at the latest; nothing: after the next submit().
  std::optional<Time> run_one(Time now);
  // Whether it is this client's command that runs. Async-signal-safe.
  bool runs(const Client& client) const noexcept { return running_ == &client; }
  bool runs_one() const noexcept { return running_ != nullptr; }
  // Whether commands of several clients compete, so that all that have come should be submitted before
  // run_one().
  bool contended(Time now) const { return queue_.contended(now); }

  // A name for an open file. Another than those that an engine gave before, which served the same nodes.
  std::uint64_t new_file_id();

  // A command of the supervisor: at once, at any locality.
  Result<Bytes> supervise(tpm::Locality locality, BytesView command);
  struct Counters {
    std::uint64_t commands = 0;        // of tenants, answered
    std::uint64_t cancelled = 0;       // of those: with TPM_RC_CANCELED
    std::chrono::nanoseconds busy{0};  // CPU time
    std::uint64_t throttled = 0;       // commands that waited for the quota
    space::ResourceManager::Counters spaces;
  };
  Counters counters() const;

  // The TPM was powered off: nothing is left in it, and commands fail.
  void powered_off() { spaces_.power_cycled(); }

 private:
  class Chip final : public space::Transmit {
   public:
    explicit Chip(Tpm& tpm) noexcept : tpm_(tpm) {}
    Result<BytesView> transmit(tpm::Locality locality, BytesView command) override {
      if (!tpm_.powered()) return Error(ErrorCode::Unavailable, "the TPM is off");
      return tpm_.process(locality, command);
    }

   private:
    Tpm& tpm_;
  };
  struct Job {
    Client* client;
    Bytes command;
    bool throttled = false;  // it has waited for the quota
  };

  void throttle();
  void run(SpaceId space, Time now);
  Result<space::Outcome> execute(SpaceId space, const Job& job, Time now);

  Tpm& tpm_;
  Chip chip_;
  space::ResourceManager spaces_;
  SpaceId supervisor_;
  SpaceId raw_;
  bool raw_is_open_ = false;
  LongCommand::Look look_ = nullptr;
  void* look_context_ = nullptr;
  const Client* running_ = nullptr;
  FairQueue queue_;
  Quota quota_;
  CpuTime cpu_time_;
  std::map<SpaceId, Job> jobs_;
  std::uint64_t last_file_id_ = 0;
  std::uint64_t commands_ = 0;
  std::uint64_t cancelled_ = 0;
  std::chrono::nanoseconds busy_{0};
  std::uint64_t throttled_ = 0;
};

}  // namespace vtpm::engine
