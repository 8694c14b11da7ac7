// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/store.h"

#include "daemon/supervisor/identity_text.h"

#include <algorithm>

namespace vtpm::supervisor {
namespace {

// NULL: none was set.
std::optional<std::string> limits_column(const InstanceRow& row) {
  if (row.limits.empty()) return std::nullopt;
  return limits_text(row.limits);
}

// A row of which the limits cannot be read must not run without them.
Result<LimitOrder> limits_of(const Statement& row, int column) {
  const auto text = row.optional_text(column);
  if (!text) return LimitOrder{};
  auto limits = parse_limits_text(*text);
  if (limits) return limits;
  return Error(ErrorCode::Corrupt, "the row of instance " + row.text(0) + ": " + limits.error().context);
}

}  // namespace

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
                                          const identity::Identity& identity,
                                          const std::optional<std::string>& runtime) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY(Statement insert,
           database_->prepare("INSERT INTO instance (id, name, owner_uid, created, container, image, config, "
                              "state, log_index, durable, identity, runtime, limits) "
                              "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'running', ?8, ?9, ?10, ?11, ?12)"));
  insert.bind(1, std::string_view(row.id)).bind(2, row.name).bind(3, std::uint64_t{row.owner_uid});
  insert.bind(4, row.created).bind(5, row.container).bind(6, row.image).bind(7, row.config).bind(8, index);
  insert.bind(9, std::uint64_t{row.durable ? 1U : 0U}).bind(10, std::string_view(identity_text(identity)));
  insert.bind(11, runtime).bind(12, limits_column(row));
  VTPM_TRY_VOID(insert.run());
  if (row.durable) {
    VTPM_TRY(Statement update,
             database_->prepare("UPDATE instance SET wrapped_key = ?2, sequence = ?3 WHERE id = ?1"));
    update.bind(1, std::string_view(row.id)).bind(2, BytesView(row.durable->wrapped_key));
    VTPM_TRY_VOID(update.bind(3, row.durable->sequence).run());
  }
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<std::uint64_t> Store::restart_instance(const InstanceRow& row, const log::InstanceCreate& entry,
                                              const std::string& runtime) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY(Statement update,
           database_->prepare("UPDATE instance SET container = ?2, image = ?3, config = ?4, log_index = ?5, "
                              "limits = ?6 WHERE id = ?1"));
  update.bind(1, std::string_view(row.id)).bind(2, row.container).bind(3, row.image).bind(4, row.config);
  VTPM_TRY_VOID(update.bind(5, index).bind(6, limits_column(row)).run());
  VTPM_TRY_VOID(set_state(row.id, "running", std::nullopt));
  VTPM_TRY_VOID(set_runtime(row.id, runtime));
  VTPM_TRY_VOID(raise_sequence(row.id, row.durable->sequence));
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<std::uint64_t> Store::reset_instance(const log::InstanceReset& entry, std::uint64_t sequence) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY_VOID(raise_sequence(entry.instance, sequence));
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

Result<std::uint64_t> Store::stop_instance(const log::InstanceState& entry) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(const std::uint64_t index, log_.append(entry));
  VTPM_TRY_VOID(set_state(entry.instance, "stopped", std::nullopt));
  VTPM_TRY_VOID(raise_sequence(entry.instance, entry.sequence));
  VTPM_TRY_VOID(transaction.commit());
  log_.committed(index + 1);
  return index;
}

// One commit for all: the log grows within the transaction, and is as it was when that fails.
Result<> Store::note_states(const std::vector<log::InstanceState>& entries) {
  const std::uint64_t before = log_.size();
  auto noted = [&]() -> Result<> {
    VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
    for (const log::InstanceState& entry : entries) {
      VTPM_TRY(const std::uint64_t index, log_.append(entry));
      log_.committed(index + 1);
      VTPM_TRY_VOID(raise_sequence(entry.instance, entry.sequence));
    }
    return transaction.commit();
  }();
  if (!noted) log_.committed(before);
  return noted;
}

Result<> Store::mark_failed(const std::string& id, std::string_view reason) {
  return set_state(id, "failed", std::string(reason));
}

Result<> Store::mark_stopped(const std::string& id) {
  return set_state(id, "stopped", std::nullopt);
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
  VTPM_TRY(Statement select,
           database_->prepare(
               "SELECT id, name, owner_uid, created, container, image, config, log_index, runtime, durable, "
               "limits FROM instance WHERE state = 'running' AND runtime IS NOT NULL ORDER BY log_index"));
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return all;
    VTPM_TRY(LimitOrder limits, limits_of(select, 10));
    all.push_back(
        {{select.text(0), select.optional_text(1), static_cast<uid_t>(select.integer(2)), select.integer(3),
          select.optional_text(4), select.optional_text(5), select.optional_text(6), std::nullopt, limits},
         select.integer(7),
         select.text(8),
         select.integer(9) == 1});
  }
}

Result<std::size_t> Store::end_left_overs(std::uint64_t time, const std::set<std::string>& taken) {
  VTPM_TRY(const std::vector<std::string> failed, ids_in_state("failed", false));
  for (const std::string& id : failed) {
    VTPM_TRY_VOID(forget_instance(id));
  }
  VTPM_TRY(const std::vector<std::string> left, ids_in_state("running", false));
  std::size_t ended = 0;
  for (const std::string& id : left) {
    if (taken.contains(id)) continue;
    const log::InstanceDestroy entry{time, id, "supervisor-restarted"};
    VTPM_TRY_VOID(end_instance(entry, "destroyed"));
    ++ended;
  }
  VTPM_TRY(const std::vector<std::string> durable, ids_in_state("running", true));
  for (const std::string& id : durable)
    if (!taken.contains(id)) VTPM_TRY_VOID(mark_stopped(id));
  return ended;
}

Result<std::vector<StoredInstance>> Store::durable_instances() {
  std::vector<StoredInstance> found;
  VTPM_TRY(Statement select,
           database_->prepare("SELECT id, name, owner_uid, created, container, image, config, log_index, "
                              "identity, wrapped_key, sequence, state, reason, limits FROM instance "
                              "WHERE durable = 1 AND state <> 'destroyed' ORDER BY log_index"));
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) break;
    auto instance = read_durable(select);
    if (!instance)
      return Error(ErrorCode::Corrupt, database_->file() + ": the row of instance " + select.text(0) + ": " +
                                           instance.error().context);
    found.push_back(std::move(*instance));
  }
  if (found.empty()) return found;
  VTPM_TRY(const auto logged, logged_sequences());
  for (StoredInstance& instance : found) {
    const auto known = logged.find(instance.row.id);
    if (known == logged.end()) continue;
    instance.row.durable->sequence = std::max(instance.row.durable->sequence, known->second);
  }
  return found;
}

Result<StoredInstance> Store::read_durable(const Statement& row) const {
  StoredInstance out{};
  out.row = {row.text(0),
             row.optional_text(1),
             static_cast<uid_t>(row.integer(2)),
             row.integer(3),
             row.optional_text(4),
             row.optional_text(5),
             row.optional_text(6),
             Durable{row.blob(9), row.integer(10)}};
  VTPM_TRY(out.row.limits, limits_of(row, 13));
  out.log_index = row.integer(7);
  VTPM_TRY(out.identity, parse_identity(row.text(8)));
  VTPM_TRY(const Bytes bytes, log_.entry(out.log_index));
  VTPM_TRY(const log::Entry entry, log::parse_entry(bytes));
  const auto* create = std::get_if<log::InstanceCreate>(&entry);
  if (create == nullptr || create->instance != out.row.id || create->ek_name != out.identity.ek_name ||
      create->ak_name != out.identity.ak_name)
    return Error(ErrorCode::Corrupt, "the log's entry " + std::to_string(out.log_index) + " is not its own");
  out.launch = create->launch;
  if (row.text(11) == "failed") out.failure = row.text(12);
  return out;
}

// The members of an entry are sorted, so that the text finds the kind without parsing every entry.
Result<std::map<std::string, std::uint64_t>> Store::logged_sequences() {
  std::map<std::string, std::uint64_t> found;
  VTPM_TRY(Statement select,
           database_->prepare("SELECT bytes FROM entry WHERE "
                              "instr(bytes, CAST('\"kind\":\"instance.state\"' AS BLOB)) > 0"));
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return found;
    VTPM_TRY(const log::Entry entry, log::parse_entry(select.blob(0)));
    const auto* state = std::get_if<log::InstanceState>(&entry);
    if (state == nullptr) continue;
    std::uint64_t& greatest = found[state->instance];
    greatest = std::max(greatest, state->sequence);
  }
}

Result<bool> Store::is_destroyed(const std::string& id) {
  VTPM_TRY(Statement select,
           database_->prepare("SELECT 1 FROM instance WHERE id = ?1 AND state = 'destroyed'"));
  return select.bind(1, std::string_view(id)).step();
}

Result<bool> Store::is_known(const std::string& id) {
  VTPM_TRY(Statement select, database_->prepare("SELECT 1 FROM instance WHERE id = ?1"));
  return select.bind(1, std::string_view(id)).step();
}

Result<> Store::set_state(const std::string& id, std::string_view state,
                          const std::optional<std::string>& reason) {
  VTPM_TRY(Statement update,
           database_->prepare("UPDATE instance SET state = ?2, reason = ?3, runtime = NULL, wrapped_key = "
                              "CASE ?2 WHEN 'destroyed' THEN NULL ELSE wrapped_key END "
                              "WHERE id = ?1"));
  return update.bind(1, std::string_view(id)).bind(2, state).bind(3, reason).run();
}

Result<> Store::raise_sequence(const std::string& id, std::uint64_t sequence) {
  VTPM_TRY(Statement update,
           database_->prepare("UPDATE instance SET sequence = max(sequence, ?2) WHERE id = ?1"));
  return update.bind(1, std::string_view(id)).bind(2, sequence).run();
}

Result<std::vector<std::string>> Store::ids_in_state(std::string_view state, bool durable) {
  std::vector<std::string> ids;
  VTPM_TRY(
      Statement select,
      database_->prepare("SELECT id FROM instance WHERE state = ?1 AND durable = ?2 ORDER BY log_index"));
  select.bind(1, state).bind(2, std::uint64_t{durable ? 1U : 0U});
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return ids;
    ids.push_back(select.text(0));
  }
}

Result<> Store::keep_enrolment(const tpm::Sha256& authority, const evidence::SignedEnrolment& enrolment) {
  VTPM_TRY(Transaction transaction, Transaction::begin(*database_));
  VTPM_TRY(Statement put,
           database_->prepare("INSERT OR REPLACE INTO enrolment (authority, statement, signature) "
                              "VALUES (?1, ?2, ?3)"));
  VTPM_TRY_VOID(put.bind(1, BytesView(authority))
                    .bind(2, BytesView(enrolment.statement))
                    .bind(3, BytesView(enrolment.signature))
                    .run());
  VTPM_TRY(Statement count, database_->prepare("SELECT count(*) FROM enrolment"));
  VTPM_TRY_VOID(count.step());
  if (count.integer(0) > evidence::kMaxEnrolments)
    return Error(ErrorCode::Exhausted, "this host is enrolled by " +
                                           std::to_string(evidence::kMaxEnrolments) +
                                           " authorities already, the limit");
  return transaction.commit();
}

Result<std::vector<evidence::SignedEnrolment>> Store::enrolments() {
  VTPM_TRY(Statement select,
           database_->prepare("SELECT statement, signature FROM enrolment ORDER BY authority"));
  std::vector<evidence::SignedEnrolment> found;
  for (;;) {
    VTPM_TRY(const bool row, select.step());
    if (!row) return found;
    found.push_back({select.blob(0), select.blob(1)});
  }
}

}  // namespace vtpm::supervisor
