// SPDX-License-Identifier: Apache-2.0
// The instances that exist now, and how peers name them. Owned by the daemon's one thread.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/supervisor/authorization.h"
#include "daemon/supervisor/store.h"

#include <vtpm/control/attach.h>

#include <map>
#include <variant>

namespace vtpm::supervisor {

struct Supervision;  // an engine and what watches it (supervision.h)

struct Node {
  control::NodeKind kind;
  std::string path;  // for people: in the mount namespace of who attached it; "container:" + path of a hook's
};

// What is known of an instance once its TPM was made.
struct Provisioned {
  identity::Identity identity;
  log::Sha256 launch;       // SHA-256 of the launch document
  std::uint64_t log_index;  // of its instance.create entry
  pid_t engine_pid;
  log::EventLog event_log;
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
// Its engine is gone; the instance stays listed until it is deleted or its container ends.
struct Failed {
  Provisioned made;
  std::string reason;
  bool logged;                               // whether its instance.destroy entry could be written
  std::shared_ptr<Supervision> supervision;  // watches the container: the instance goes with it
};
using State = std::variant<Manufacturing, Running, Destroying, Failed>;

struct Instance {
  InstanceRow row;
  State state;
};

// What may be shown of an instance: nullptr while it is made or destroyed.
const Provisioned* shown(const Instance& instance) noexcept;

// An instance's name: [a-zA-Z0-9][a-zA-Z0-9._-]{0,63}. Malformed otherwise.
Result<> check_name(std::string_view name);

class Registry {
 public:
  // A new instance in state Manufacturing. The owner has another one of that name: Conflict. The owner has
  // `quota` instances already: Exhausted.
  Result<> add(InstanceRow row, std::size_t quota);
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
