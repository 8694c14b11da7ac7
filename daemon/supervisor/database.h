// SPDX-License-Identifier: Apache-2.0
// SQLite with Result: the file of the registry and the log. Blocking; used by one thread at a time.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

struct sqlite3;
struct sqlite3_stmt;

namespace vtpm::supervisor {

// A prepared statement. Parameters are numbered from 1, columns from 0. Borrows its database.
class Statement {
 public:
  Statement& bind(int parameter, std::uint64_t value);
  Statement& bind(int parameter, BytesView blob);
  Statement& bind(int parameter, std::string_view text);
  Statement& bind(int parameter, const std::optional<std::string>& text);

  // True: there is a row. False: done.
  Result<bool> step();
  // A statement that gives no rows.
  Result<> run();

  std::uint64_t integer(int column) const;
  Bytes blob(int column) const;
  std::string text(int column) const;
  std::optional<std::string> optional_text(int column) const;

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const noexcept;
  };
  Statement(std::unique_ptr<sqlite3_stmt, Finalize> statement, const std::string& file)
      : statement_(std::move(statement)), file_(&file) {}
  void note(int status) noexcept;

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  const std::string* file_;
  int bind_status_ = 0;
};

// One database file, WAL, synchronous=FULL: what was committed survives a power cut.
class Database {
 public:
  // Opens the file or makes a new one (0600) with the current schema; one of an older schema is brought to it
  // once it was found whole. A file that is not a database of ours, is damaged or has a newer schema is
  // Corrupt or Unsupported, names the file, and is left as it is.
  static Result<std::unique_ptr<Database>> open(const std::string& file);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database();

  Result<Statement> prepare(std::string_view sql);
  // One or more statements without parameters or rows.
  Result<> execute(const std::string& sql);
  const std::string& file() const noexcept { return file_; }

 private:
  Database(sqlite3* handle, std::string file) noexcept : handle_(handle), file_(std::move(file)) {}
  Result<> check();
  Result<> prepare_schema();
  Result<> migrate();

  sqlite3* handle_;
  std::string file_;
};

// Everything until commit() happens or nothing does: rolled back on destruction.
class Transaction {
 public:
  static Result<Transaction> begin(Database& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  Result<> commit();

 private:
  explicit Transaction(Database& database) noexcept : database_(&database) {}
  Database* database_;
};

}  // namespace vtpm::supervisor
