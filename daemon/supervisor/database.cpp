// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/database.h"

#include <vtpm/os/unique_fd.h>

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace vtpm::supervisor {
namespace {

// "vTPM" as SQLite's application_id: a file of another program is not taken for ours.
constexpr std::uint64_t kApplicationId = 0x7654504d;
constexpr std::uint64_t kSchemaVersion = 4;

constexpr const char* kSchema = R"(
BEGIN;
CREATE TABLE entry (idx INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE node (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
                   PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE instance (
  id TEXT PRIMARY KEY, name TEXT, owner_uid INTEGER NOT NULL, created INTEGER NOT NULL,
  container TEXT, image TEXT, config TEXT, state TEXT NOT NULL, reason TEXT, log_index INTEGER NOT NULL,
  durable INTEGER NOT NULL DEFAULT 0, identity TEXT, wrapped_key BLOB, sequence INTEGER, runtime TEXT,
  limits TEXT);
CREATE INDEX instance_live ON instance (state) WHERE state <> 'destroyed';
CREATE TABLE enrolment (authority BLOB PRIMARY KEY, statement BLOB NOT NULL, signature BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = 0x7654504d;
PRAGMA user_version = 4;
COMMIT;
)";

// What each version added to the one before, as one commit: a vtpmd that is ended in between finds the one or
// the other.
constexpr std::array kMigrations = {R"(
BEGIN IMMEDIATE;
ALTER TABLE instance ADD COLUMN durable INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN identity TEXT;
ALTER TABLE instance ADD COLUMN wrapped_key BLOB;
ALTER TABLE instance ADD COLUMN sequence INTEGER;
ALTER TABLE instance ADD COLUMN runtime TEXT;
PRAGMA user_version = 2;
COMMIT;
)",
                                    R"(
BEGIN IMMEDIATE;
ALTER TABLE instance ADD COLUMN limits TEXT;
PRAGMA user_version = 3;
COMMIT;
)",
                                    R"(
BEGIN IMMEDIATE;
CREATE TABLE enrolment (authority BLOB PRIMARY KEY, statement BLOB NOT NULL, signature BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 4;
COMMIT;
)"};
static_assert(kMigrations.size() + 1 == kSchemaVersion);

Error sqlite_error(int status, std::string_view file, std::string_view what) {
  ErrorCode code = ErrorCode::Io;
  switch (status & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      code = ErrorCode::Corrupt;
      break;
    case SQLITE_FULL:
      code = ErrorCode::Exhausted;
      break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      code = ErrorCode::Busy;
      break;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      code = ErrorCode::PermissionDenied;
      break;
    default:
      break;
  }
  std::string text = std::string(file) + ": " + std::string(what);
  if (code == ErrorCode::Corrupt) text += "; the file is damaged and was kept as it is";
  return {code, std::move(text)};
}

// SQLite would create the file with the umask's mode; it holds what others must not read.
Result<> create_private(const std::string& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return errno_error(file, errno);
  return {};
}

}  // namespace

void Statement::Finalize::operator()(sqlite3_stmt* statement) const noexcept {
  sqlite3_finalize(statement);
}

void Statement::note(int status) noexcept {
  if (bind_status_ == SQLITE_OK) bind_status_ = status;
}

Statement& Statement::bind(int parameter, std::uint64_t value) {
  note(sqlite3_bind_int64(statement_.get(), parameter, static_cast<sqlite3_int64>(value)));
  return *this;
}

Statement& Statement::bind(int parameter, BytesView blob) {
  note(sqlite3_bind_blob64(statement_.get(), parameter, blob.data(), blob.size(), SQLITE_TRANSIENT));
  return *this;
}

Statement& Statement::bind(int parameter, std::string_view text) {
  note(sqlite3_bind_text64(statement_.get(), parameter, text.data(), text.size(), SQLITE_TRANSIENT,
                           SQLITE_UTF8));
  return *this;
}

Statement& Statement::bind(int parameter, const std::optional<std::string>& text) {
  if (text) return bind(parameter, std::string_view(*text));
  note(sqlite3_bind_null(statement_.get(), parameter));
  return *this;
}

Result<bool> Statement::step() {
  if (bind_status_ != SQLITE_OK) return sqlite_error(bind_status_, *file_, "a parameter was refused");
  const int status = sqlite3_step(statement_.get());
  if (status == SQLITE_ROW) return true;
  if (status == SQLITE_DONE) return false;
  return sqlite_error(status, *file_, sqlite3_errmsg(sqlite3_db_handle(statement_.get())));
}

Result<> Statement::run() {
  VTPM_TRY(const bool row, step());
  if (row) return Error(ErrorCode::Internal, "a statement gave a row where none belongs");
  return {};
}

std::uint64_t Statement::integer(int column) const {
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement_.get(), column));
}

Bytes Statement::blob(int column) const {
  const auto* data = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_.get(), column));
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? Bytes() : Bytes(data, data + size);
}

std::string Statement::text(int column) const {
  return std::string(as_text(blob(column)));
}

std::optional<std::string> Statement::optional_text(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
  return text(column);
}

Result<std::unique_ptr<Database>> Database::open(const std::string& file) {
  VTPM_TRY_VOID(create_private(file));
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
  const int status = sqlite3_open_v2(file.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database(new Database(handle, file));
  if (status != SQLITE_OK) return sqlite_error(status, file, sqlite3_errstr(status));
  VTPM_TRY_VOID(database->check());
  // Two supervisors never share the file (the state directory is locked): the WAL needs no shared memory.
  VTPM_TRY_VOID(database->execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA foreign_keys = ON;"));
  VTPM_TRY_VOID(database->execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  VTPM_TRY_VOID(database->migrate());
  return database;
}

Database::~Database() {
  sqlite3_close_v2(handle_);
}

// Reads everything before anything is written, so that a file that is refused has not been changed.
Result<> Database::check() {
  VTPM_TRY(Statement tables, prepare("SELECT count(*) FROM sqlite_schema"));
  VTPM_TRY_VOID(tables.step());
  if (tables.integer(0) == 0) return prepare_schema();
  VTPM_TRY(Statement id, prepare("SELECT application_id, user_version FROM pragma_application_id, "
                                 "pragma_user_version"));
  VTPM_TRY_VOID(id.step());
  if (id.integer(0) != kApplicationId)
    return Error(ErrorCode::Corrupt, file_ + ": is not a database of vtpmd; it was kept as it is");
  if (id.integer(1) == 0 || id.integer(1) > kSchemaVersion)
    return Error(ErrorCode::Unsupported, file_ + ": has schema version " + std::to_string(id.integer(1)) +
                                             ", this vtpmd knows " + std::to_string(kSchemaVersion));
  VTPM_TRY(Statement quick, prepare("PRAGMA quick_check(1)"));
  VTPM_TRY(const bool row, quick.step());
  if (!row || quick.text(0) != "ok")
    return sqlite_error(SQLITE_CORRUPT, file_, row ? quick.text(0) : "cannot be checked");
  return {};
}

Result<> Database::migrate() {
  std::uint64_t version = 0;
  {
    VTPM_TRY(Statement found, prepare("PRAGMA user_version"));
    VTPM_TRY_VOID(found.step());
    version = found.integer(0);
  }
  for (; version < kSchemaVersion; ++version) {
    Result<> done = execute(kMigrations[version - 1]);
    if (done) continue;
    // A commit that did not happen leaves the transaction open.
    if (sqlite3_get_autocommit(handle_) == 0) static_cast<void>(execute("ROLLBACK"));
    return done.error().within("the database cannot be brought to schema version " +
                               std::to_string(version + 1));
  }
  return {};
}

Result<> Database::prepare_schema() {
  return execute(kSchema);
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int status =
      sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  std::unique_ptr<sqlite3_stmt, Statement::Finalize> owned(statement);
  if (status != SQLITE_OK) return sqlite_error(status, file_, sqlite3_errmsg(handle_));
  return Statement(std::move(owned), file_);
}

Result<> Database::execute(const std::string& sql) {
  const int status = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (status != SQLITE_OK) return sqlite_error(status, file_, sqlite3_errmsg(handle_));
  return {};
}

Result<Transaction> Transaction::begin(Database& database) {
  VTPM_TRY_VOID(database.execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::~Transaction() {
  // A failed rollback leaves nothing committed either: the next BEGIN reports the connection's state.
  if (database_ != nullptr && !database_->execute("ROLLBACK")) database_ = nullptr;
}

Result<> Transaction::commit() {
  VTPM_TRY_VOID(database_->execute("COMMIT"));
  database_ = nullptr;
  return {};
}

}  // namespace vtpm::supervisor
