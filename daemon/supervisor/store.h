// SPDX-License-Identifier: Apache-2.0
// What vtpmd keeps on disk: the log and the instances' rows, each change of both in one commit. Blocking; one
// thread at a time (the "store" worker).
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/supervisor/limits.h"
#include "daemon/supervisor/log_store.h"

#include <vtpm/evidence/enrolment.h>

#include <sys/types.h>

#include <map>
#include <memory>
#include <set>

namespace vtpm::supervisor {

// What the row of a durable instance has more.
struct Durable {
  Bytes wrapped_key;           // its state key (state_key.h)
  std::uint64_t sequence = 0;  // the greatest that was committed: a start from an older state is refused
};

// A row of the registry. Rows of destroyed instances stay: they are the history.
struct InstanceRow {
  std::string id;
  std::optional<std::string> name;
  uid_t owner_uid;
  std::uint64_t created;  // ms since 1970-01-01T00:00:00Z
  std::optional<std::string> container;
  std::optional<std::string> image;
  std::optional<std::string> config;
  std::optional<Durable> durable = {};  // empty: ephemeral
  LimitOrder limits = {};               // set for it in place of the defaults
};

// A durable instance as an earlier vtpmd left it.
struct StoredInstance {
  InstanceRow row;
  identity::Identity identity;
  log::Sha256 launch;  // of its last start
  std::uint64_t log_index;
  std::optional<std::string> failure;  // why it could not be started
};

// A running instance as the database knows it.
struct StoredRunning {
  InstanceRow row;
  std::uint64_t log_index;
  std::string runtime;
  bool durable;
};

class Store {
 public:
  // Opens `state_dir`/vtpm.db (see Database::open and LogStore::open for what is refused).
  static Result<std::unique_ptr<Store>> open(const std::string& state_dir);

  // Each returns the entry's index, after the commit.
  Result<std::uint64_t> append(const log::Entry& entry);
  // `runtime`: what a later vtpmd needs to take the instance back (runtime_text.h).
  Result<std::uint64_t> add_instance(const InstanceRow& row, const log::InstanceCreate& entry,
                                     const identity::Identity& identity,
                                     const std::optional<std::string>& runtime = {});
  Result<> set_runtime(const std::string& id, const std::string& runtime);
  // A durable instance was started again: `row` as it is from now on.
  Result<std::uint64_t> restart_instance(const InstanceRow& row, const log::InstanceCreate& entry,
                                         const std::string& runtime = {});
  // Its engine died, another continues; `sequence` is that which it continued from.
  Result<std::uint64_t> reset_instance(const log::InstanceReset& entry, std::uint64_t sequence);
  // An orderly stop of a durable instance.
  Result<std::uint64_t> stop_instance(const log::InstanceState& entry);
  // Durable instances have committed more: an entry each.
  Result<> note_states(const std::vector<log::InstanceState>& entries);
  // A durable instance cannot be started, or (no reason) ended in no order; without an entry.
  Result<> mark_failed(const std::string& id, std::string_view reason);
  Result<> mark_stopped(const std::string& id);
  // `state`: "failed" or "destroyed", for people who read the table. A destroyed one's key is forgotten.
  Result<std::uint64_t> end_instance(const log::InstanceDestroy& entry, std::string_view state);
  // A failed instance, whose end is in the log already, was deleted.
  Result<> forget_instance(const std::string& id);
  // The instances that an earlier vtpmd left running.
  Result<std::vector<StoredRunning>> left_running();
  // Those of them that are not `taken` back: the ephemeral ones are destroyed, an entry each, the durable
  // ones stopped. Returns how many were destroyed.
  Result<std::size_t> end_left_overs(std::uint64_t time, const std::set<std::string>& taken = {});
  // The durable instances that were not destroyed, with the greatest sequence that the table or the log has.
  // A row that cannot be read is Corrupt.
  Result<std::vector<StoredInstance>> durable_instances();
  // An enrolment of the anchor's AK; it replaces the one by the same authority. More than
  // evidence::kMaxEnrolments authorities: Exhausted.
  Result<> keep_enrolment(const tpm::Sha256& authority, const evidence::SignedEnrolment& enrolment);
  Result<std::vector<evidence::SignedEnrolment>> enrolments();
  // Whether there is a row of that id, and it is of a destroyed instance.
  Result<bool> is_destroyed(const std::string& id);
  // Whether it was ever added.
  Result<bool> is_known(const std::string& id);

  const LogStore& log() const noexcept { return log_; }

 private:
  Store(std::unique_ptr<Database> database, LogStore log)
      : database_(std::move(database)), log_(std::move(log)) {}
  Result<> set_state(const std::string& id, std::string_view state, const std::optional<std::string>& reason);
  Result<> raise_sequence(const std::string& id, std::uint64_t sequence);
  Result<StoredInstance> read_durable(const Statement& row) const;
  Result<std::map<std::string, std::uint64_t>> logged_sequences();
  Result<std::vector<std::string>> ids_in_state(std::string_view state, bool durable);

  std::unique_ptr<Database> database_;
  LogStore log_;
};

}  // namespace vtpm::supervisor
