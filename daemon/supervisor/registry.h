// SPDX-License-Identifier: Apache-2.0
// The instances that exist now, and how peers name them. Owned by the daemon's one thread.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/ipc/engine_limits.h"
#include "daemon/supervisor/authorization.h"
#include "daemon/supervisor/disposal.h"
#include "daemon/supervisor/store.h"

#include <vtpm/control/attach.h>

#include <map>
#include <variant>

namespace vtpm::supervisor {

struct Supervision;  // an engine and what watches it (supervision.h)

struct Node {
  control::NodeKind kind;
  std::string path;  // for people: in the mount namespace of who attached it; "container:" + path of a hook's
  control::Backend backend = control::Backend::Fuse;
  // A duplicate of its descriptor. Of a durable instance's, so that another engine can serve it when the
  // first died; of a socket, so that it can be ended.
  PeerFd channel = {};
  bool gone = false;        // no engine serves it any more: its users get ENOTCONN
  std::uint8_t number = 0;  // its name among the instance's nodes that the keeper has
};

// What is known of an instance once its TPM was made.
struct Provisioned {
  identity::Identity identity;
  log::Sha256 launch;       // SHA-256 of the launch document
  std::uint64_t log_index;  // of its last instance.create entry
  pid_t engine_pid;         // 0: it has no engine now
  log::EventLog event_log;
  // What its engine was told. Empty: it has none now, or one of a version that knows no limits.
  std::optional<ipc::EngineLimits> limits = {};
  bool placed = false;  // its engine runs in its container's cgroup
};

struct Manufacturing {};
struct Running {
  Provisioned made;
  std::shared_ptr<Supervision> supervision;
  std::vector<Node> nodes;
};
struct Destroying {
  Provisioned made;
};
// Its engine is gone; the instance stays listed until it is deleted or its container ends. A durable one may
// be started again once the reason is removed.
struct Failed {
  Provisioned made;
  std::string reason;
  bool logged;                               // whether its instance.destroy entry could be written
  std::shared_ptr<Supervision> supervision;  // watches the container: an ephemeral instance goes with it
};
// Others wait. A durable one's engine is powered on from the slot files; or a living engine is taken back.
struct Starting {
  Provisioned made;
};
// Of durable instances alone: the engine ends in order. Others wait.
struct Stopping {
  Provisioned made;
};
// Its engine died, another takes its place. The container is watched on.
struct Resetting {
  Provisioned made;
  std::shared_ptr<Supervision> supervision;
  std::vector<Node> nodes;
};
// It is its slot files alone.
struct Stopped {
  Provisioned made;
};
using State =
    std::variant<Manufacturing, Running, Destroying, Failed, Starting, Stopping, Resetting, Stopped>;

struct Instance {
  InstanceRow row;
  State state;
};

// What may be shown of an instance: nullptr while it is made or destroyed.
const Provisioned* shown(const Instance& instance) noexcept;
// "running", "stopped", "failed", ... as the API has it.
std::string_view state_name(const State& state) noexcept;
// It changes its state by itself soon: who needs the outcome waits.
bool is_between_states(const State& state) noexcept;

// An instance's name: [a-zA-Z0-9][a-zA-Z0-9._-]{0,63}. Malformed otherwise.
Result<> check_name(std::string_view name);

class Registry {
 public:
  // A new instance in state Manufacturing. The owner has another one of that name: Conflict. The owner has
  // `quota` instances already: Exhausted.
  Result<> add(InstanceRow row, std::size_t quota);
  // One that was there before this vtpmd: no quota.
  void restore(InstanceRow row, State state);
  void remove(const std::string& id) { instances_.erase(id); }

  // nullptr: there is none.
  Instance* find(const std::string& id);
  const std::map<std::string, Instance>& all() const noexcept { return instances_; }

  // The id of what a peer calls `reference`: an id, a name (the peer's own first) or the beginning of an id,
  // at least 4 digits. Only instances that the peer may use and that are shown count: NotFound otherwise.
  // Several: Conflict.
  Result<std::string> resolve(const PeerCredentials& peer, const Rules& rules,
                              std::string_view reference) const;

 private:
  std::map<std::string, Instance> instances_;
};

}  // namespace vtpm::supervisor
