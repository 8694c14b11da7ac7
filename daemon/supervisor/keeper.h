// SPDX-License-Identifier: Apache-2.0
// The keeper as vtpmd uses it: a process that holds what a later vtpmd needs to take living engines back
// (PRIVSEP.md: "When vtpmd dies"). Blocking; one thread at a time (the "keeper" worker). Calls after a lost
// connection first connect again. Of their errors, Unreachable alone says that there is no keeper any more.
#pragma once

#include "daemon/ipc/keeper_link.h"
#include "daemon/supervisor/disposal.h"

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace vtpm::supervisor {

// Not known, or nobody's.
inline constexpr uid_t kNoOwner = static_cast<uid_t>(-1);

// What it holds of one instance. Descriptors that it does not hold are empty.
struct HeldInstance {
  std::string id;
  uid_t owner = kNoOwner;  // which it is not told
  UniqueFd control;        // vtpmd's end of the engine's control socket
  UniqueFd engine;         // pidfd
  UniqueFd container;      // pidfd; an instance may have none
  UniqueFd cgroup;         // cgroup.procs of a durable one that is placed in its container's cgroup
  struct HeldNode {
    std::uint8_t number;
    UniqueFd channel;
  };
  std::vector<HeldNode> nodes;
};

class Keeper {
 public:
  // Connects to the keeper that an earlier vtpmd has left, or starts one. One that is there and does not
  // answer: Timeout; it is not replaced, for the engines would end with it.
  // Borrows the disposal.
  static Result<std::unique_ptr<Keeper>> start(std::string engine_path, const std::string& runtime_dir,
                                               Disposal& disposal);

  // "process N (vtpm-engine keeper) at PATH", for messages that say which process an operator may end.
  std::string name() const;
  // All that it holds, in the order of the ids.
  Result<std::vector<HeldInstance>> recall();
  // Whose an instance is that was recalled.
  void set_owner(const std::string& id, uid_t owner);
  // Holds duplicates of what is there. Nodes and cgroups for which there is no room are logged, and no error.
  Result<> hold(const HeldInstance& instance);
  // Or of one node alone. No room: Exhausted.
  Result<> hold_node(const std::string& id, uid_t owner, std::uint8_t number, int channel);
  Result<> drop_node(const std::string& id, std::uint8_t number);
  Result<> release(const std::string& id);
  // After the connection was lost: connects again to the keeper if it lives, or starts another; and it holds
  // all of these. It lives and does not answer: Timeout, and it is not replaced.
  Result<> restore(const std::vector<HeldInstance>& instances);
  // Ends it, in order.
  Result<> quit();
  // A duplicate of the connection, which hangs up when it is lost.
  Result<UniqueFd> watch() const { return link_.watch(); }

 private:
  // One more descriptor of a node that the keeper has, or may have.
  struct Copy {
    UniqueFd fd;
    uid_t owner;
  };
  using Copies = std::map<ipc::HeldKey, Copy>;

  Keeper(std::string engine_path, std::string path, ipc::KeeperLink link, Disposal& disposal)
      : engine_path_(std::move(engine_path)),
        path_(std::move(path)),
        link_(std::move(link)),
        disposal_(disposal) {}

  Result<> ensure_connected();
  template <class Ask>
  Result<> insist(Ask ask);
  Result<> let_go_of_owed();
  Result<> copy_node(const ipc::HeldKey& key, int channel, uid_t owner);
  Result<> drop(const ipc::HeldKey& key);
  Result<> release(std::uint64_t instance);
  void dispose(const ipc::HeldKey& key);
  void dispose_all(std::uint64_t instance);
  void dispose(Copies::node_type copy);

  std::string engine_path_;
  std::string path_;
  ipc::KeeperLink link_;
  Disposal& disposal_;
  // The keeper must not be who closes one last (PRIVSEP.md): vtpmd lets go of each after the keeper.
  Copies copies_;
  // What it was to let go of while it could not be told.
  std::set<std::uint64_t> owed_releases_;
  std::set<ipc::HeldKey> owed_drops_;
};

}  // namespace vtpm::supervisor
