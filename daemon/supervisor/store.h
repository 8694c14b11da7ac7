// SPDX-License-Identifier: Apache-2.0
// What vtpmd keeps on disk: the log and the instances' rows, each change of both in one commit. Blocking; one
// thread at a time (the "store" worker).
#pragma once

#include "daemon/supervisor/log_store.h"

#include <sys/types.h>

#include <memory>
#include <set>

namespace vtpm::supervisor {

// A row of the registry. Rows of destroyed instances stay: they are the history.
struct InstanceRow {
  std::string id;
  std::optional<std::string> name;
  uid_t owner_uid;
  std::uint64_t created;  // ms since 1970-01-01T00:00:00Z
  std::optional<std::string> container;
  std::optional<std::string> image;
  std::optional<std::string> config;
};

// A running instance as the database knows it.
struct StoredRunning {
  InstanceRow row;
  std::uint64_t log_index;
  std::string runtime;
};

class Store {
 public:
  // Opens `state_dir`/vtpm.db (see Database::open and LogStore::open for what is refused).
  static Result<std::unique_ptr<Store>> open(const std::string& state_dir);

  // Each returns the entry's index, after the commit.
  Result<std::uint64_t> append(const log::Entry& entry);
  // `runtime`: what a later vtpmd needs to take the instance back (runtime_text.h).
  Result<std::uint64_t> add_instance(const InstanceRow& row, const log::InstanceCreate& entry,
                                     const std::optional<std::string>& runtime = {});
  Result<> set_runtime(const std::string& id, const std::string& runtime);
  // `state`: "failed" or "destroyed", for people who read the table.
  Result<std::uint64_t> end_instance(const log::InstanceDestroy& entry, std::string_view state);
  // A failed instance, whose end is in the log already, was deleted.
  Result<> forget_instance(const std::string& id);
  // The instances that an earlier vtpmd left running.
  Result<std::vector<StoredRunning>> left_running();
  // Those of them that are not `taken` back are destroyed: an entry each. Returns how many.
  Result<std::size_t> end_left_overs(std::uint64_t time, const std::set<std::string>& taken = {});

  const LogStore& log() const noexcept { return log_; }

 private:
  Store(std::unique_ptr<Database> database, LogStore log)
      : database_(std::move(database)), log_(std::move(log)) {}
  Result<> set_state(const std::string& id, std::string_view state, std::string_view reason);
  Result<std::vector<std::string>> ids_in_state(std::string_view state);

  std::unique_ptr<Database> database_;
  LogStore log_;
};

}  // namespace vtpm::supervisor
