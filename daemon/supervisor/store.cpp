// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/store.h"

namespace vtpm::supervisor {

Result<std::unique_ptr<Store>> Store::open(const std::string& state_dir) {
  VTPM_TRY(std::unique_ptr<Database> database, Database::open(state_dir + "/vtpm.db"));
  VTPM_TRY(LogStore log, LogStore::open(*database));
  return std::unique_ptr<Store>(new Store(std::move(database), std::move(log)));
}

Result<std::uint64_t> Store::append(const log::Entry& entry) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<std::uint64_t> Store::add_instance(const InstanceRow& row, const log::InstanceCreate& entry,
                                          const std::optional<std::string>& runtime) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY(Statement insert,
           database_->prepare(
               "INSERT INTO instance (id, name, owner_uid, created, container, image, config, "
               "state, log_index, runtime) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9)"));
  insert.bind(1, std::string_view(row.id)).bind(2, row.name).bind(3, std::uint64_t{row.owner_uid});
  insert.bind(4, row.created).bind(5, row.container).bind(6, row.image).bind(7, row.config).bind(8, index);
  insert.bind(9, runtime);
  VTPM_TRY_VOID(insert.run());
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<std::uint64_t> Store::end_instance(const log::InstanceDestroy& entry, std::string_view state) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY_VOID(set_state(entry.instance, state, entry.reason));
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<> Store::forget_instance(const std::string& id) {
  VTPM_TRY(Statement update, database_->prepare("UPDATE instance SET state = 'destroyed' WHERE id = ?1"));
  return update.bind(1, std::string_view(id)).run();
}

Result<> Store::set_runtime(const std::string& id, const std::string& runtime) {
  VTPM_TRY(Statement update, database_->prepare("UPDATE instance SET runtime = ?2 WHERE id = ?1"));
  return update.bind(1, std::string_view(id)).bind(2, std::string_view(runtime)).run();
}

Result<std::vector<StoredRunning>> Store::left_running() {
  std::vector<StoredRunning> all;
  VTPM_TRY(
      Statement select,
      database_->prepare("SELECT id, name, owner_uid, created, container, image, config, log_index, runtime "
                         "FROM instance WHERE state = 'running' AND runtime IS NOT NULL ORDER BY log_index"));
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return all;
    all.push_back(
        {{select.text(0), select.optional_text(1), static_cast<uid_t>(select.integer(2)), select.integer(3),
          select.optional_text(4), select.optional_text(5), select.optional_text(6)},
         select.integer(7),
         select.text(8)});
  }
}

Result<std::size_t> Store::end_left_overs(std::uint64_t time, const std::set<std::string>& taken) {
  VTPM_TRY(const std::vector<std::string> failed, ids_in_state("failed"));
  for (const std::string& id : failed) {
    VTPM_TRY_VOID(forget_instance(id));
  }
  VTPM_TRY(const std::vector<std::string> left, ids_in_state("running"));
  std::size_t ended = 0;
  for (const std::string& id : left) {
    if (taken.contains(id)) continue;
    const log::InstanceDestroy entry{time, id, "supervisor-restarted"};
    VTPM_TRY_VOID(end_instance(entry, "destroyed"));
    ++ended;
  }
  return ended;
}

Result<> Store::set_state(const std::string& id, std::string_view state, std::string_view reason) {
  VTPM_TRY(Statement update,
           database_->prepare("UPDATE instance SET state = ?2, reason = ?3, runtime = NULL WHERE id = ?1"));
  return update.bind(1, std::string_view(id)).bind(2, state).bind(3, reason).run();
}

Result<std::vector<std::string>> Store::ids_in_state(std::string_view state) {
  std::vector<std::string> ids;
  VTPM_TRY(Statement select,
           database_->prepare("SELECT id FROM instance WHERE state = ?1 ORDER BY log_index"));
  select.bind(1, state);
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return ids;
    ids.push_back(select.text(0));
  }
}

}  // namespace vtpm::supervisor
