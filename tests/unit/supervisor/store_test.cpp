// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/store.h"

#include "daemon/identity/templates.h"
#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/tpm/attest.h>

#include <sqlite3.h>
#include <tss2/tss2_mu.h>

#include <cstdlib>
#include <filesystem>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

// As the first release wrote it.
constexpr const char* kVersion1 = R"(
PRAGMA journal_mode = WAL;
CREATE TABLE entry (idx INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE node (level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
                   PRIMARY KEY (level, idx)) WITHOUT ROWID;
CREATE TABLE instance (
  id TEXT PRIMARY KEY, name TEXT, owner_uid INTEGER NOT NULL, created INTEGER NOT NULL,
  container TEXT, image TEXT, config TEXT, state TEXT NOT NULL, reason TEXT, log_index INTEGER NOT NULL);
CREATE INDEX instance_live ON instance (state) WHERE state <> 'destroyed';
PRAGMA application_id = 0x7654504d;
PRAGMA user_version = 1;
)";

struct Directory {
  Directory() {
    char pattern[] = "/tmp/vtpm-store-XXXXXX";
    path = ::mkdtemp(pattern);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string file() const { return path + "/vtpm.db"; }
  std::string path;
};

log::InstanceCreate create(const std::string& id) {
  return {
      1, id, 1000, 0, std::nullopt, std::nullopt, std::nullopt, Bytes(34, 1), Bytes(34, 2), log::Sha256{}};
}

const identity::Identity kNoKeys;

Bytes marshalled(const TPMT_PUBLIC& area) {
  Bytes out(sizeof area);
  std::size_t size = 0;
  REQUIRE(Tss2_MU_TPMT_PUBLIC_Marshal(&area, out.data(), out.size(), &size) == TSS2_RC_SUCCESS);
  out.resize(size);
  return out;
}

identity::Identity keys() {
  identity::Identity made;
  made.ek_public = marshalled(identity::ek_template());
  made.ak_public = marshalled(identity::instance_ak_template());
  made.srk_name = Bytes(34, 3);
  made.ek_name = tpm::name_of_public(made.ek_public).value();
  made.ak_name = tpm::name_of_public(made.ak_public).value();
  return made;
}

InstanceRow durable_row(const std::string& id, std::uint64_t sequence) {
  return {id,           "name-" + id, 1000,         1,
          std::nullopt, std::nullopt, std::nullopt, Durable{Bytes(60, 9), sequence}};
}

log::InstanceCreate durable_create(const std::string& id) {
  auto entry = create(id);
  entry.ek_name = keys().ek_name;
  entry.ak_name = keys().ak_name;
  entry.launch.fill(4);
  return entry;
}

// The only durable instance of the store.
StoredInstance only(Store& store) {
  auto found = store.durable_instances();
  INFO((found ? "" : found.error().context));
  REQUIRE(found);
  REQUIRE(found->size() == 1);
  return std::move(found->front());
}

InstanceRow row(const std::string& id) {
  return {id, "name-" + id, 1000, 1, std::nullopt, std::nullopt, std::nullopt};
}

std::unique_ptr<Store> open(const Directory& directory) {
  auto store = Store::open(directory.path);
  INFO((store ? "" : store.error().context));
  REQUIRE(store);
  return std::move(*store);
}

// Opens the file behind the store's back and changes it.
void change(const Directory& directory, const std::string& sql) {
  auto database = Database::open(directory.file());
  REQUIRE(database);
  REQUIRE((*database)->execute(sql));
}

LogHead head(const Store& store) {
  auto found = store.log().head(store.log().size());
  REQUIRE(found);
  return *found;
}

void refused(const Directory& directory, ErrorCode code) {
  const auto store = Store::open(directory.path);
  REQUIRE_FALSE(store);
  CHECK(store.error().kind() == code);
  CHECK(store.error().context.find(directory.file()) != std::string::npos);
}

}  // namespace

TEST_CASE("store: a new log is empty, and its root is SHA-256 of nothing") {
  const Directory directory;
  const auto store = open(directory);
  CHECK(store->log().size() == 0);
  CHECK(head(*store).root == tpm::sha256(BytesView()));
}

TEST_CASE("store: entries and head are the same after reopening") {
  const Directory directory;
  LogHead before{};
  {
    const auto store = open(directory);
    for (std::uint64_t i = 0; i < 13; ++i)
      CHECK(store->append(log::HostStop{i}).value() == i);
    before = head(*store);
  }
  const auto store = open(directory);
  CHECK(store->log().size() == 13);
  CHECK(head(*store).root == before.root);
  CHECK(store->append(log::HostStop{13}).value() == 13);
  const auto proof = store->log().consistency_proof(13, 14);
  REQUIRE(proof);
  CHECK(log::verify_consistency(13, before.root, 14, head(*store).root, *proof));
}

TEST_CASE("store: every entry has an inclusion proof at every later size") {
  const Directory directory;
  const auto store = open(directory);
  for (std::uint64_t i = 0; i < 9; ++i)
    REQUIRE(store->append(log::HostStop{i}));
  for (std::uint64_t size = 1; size <= 9; ++size)
    for (std::uint64_t i = 0; i < size; ++i) {
      const auto logged = store->log().logged(i, size);
      REQUIRE(logged);
      CHECK(log::verify_inclusion(log::leaf_hash(logged->entry), i, size, logged->path,
                                  store->log().head(size)->root));
    }
  CHECK_FALSE(store->log().logged(9, 9));
  CHECK_FALSE(store->log().head(10));
}

TEST_CASE("store: entries are read in pages") {
  const Directory directory;
  const auto store = open(directory);
  for (std::uint64_t i = 0; i < 5; ++i)
    REQUIRE(store->append(log::HostStop{i}));
  CHECK(store->log().entries(0, 100)->size() == 5);
  CHECK(store->log().entries(3, 1)->size() == 1);
  CHECK(store->log().entries(5, 1)->empty());
  CHECK(as_text((*store->log().entries(4, 9))[0]) == log::serialize(log::HostStop{4}));
}

TEST_CASE("store: instances that were left running are destroyed in the log, once") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(row("aa"), create("aa"), kNoKeys));
    REQUIRE(store->add_instance(row("bb"), create("bb"), kNoKeys));
    REQUIRE(store->add_instance(row("cc"), create("cc"), kNoKeys));
    REQUIRE(store->end_instance({2, "bb", "requested"}, "destroyed"));
    REQUIRE(store->end_instance({2, "cc", "engine-died"}, "failed"));
  }
  const auto store = open(directory);
  CHECK(store->end_left_overs(7).value() == 1);
  const auto last = log::parse_entry(*store->log().entry(store->log().size() - 1));
  REQUIRE(last);
  CHECK(std::get<log::InstanceDestroy>(*last).instance == "aa");
  CHECK(std::get<log::InstanceDestroy>(*last).reason == "supervisor-restarted");
  CHECK(store->end_left_overs(8).value() == 0);
}

TEST_CASE("store: a durable instance is found again as it was, stopped") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
    REQUIRE(store->add_instance(row("bb"), create("bb"), kNoKeys));
  }
  const auto store = open(directory);
  CHECK(store->end_left_overs(7).value() == 1);  // bb alone
  const StoredInstance found = only(*store);
  CHECK(found.row.id == "aa");
  CHECK(found.row.name == "name-aa");
  CHECK(found.row.durable->wrapped_key == Bytes(60, 9));
  CHECK(found.row.durable->sequence == 5);
  CHECK(found.identity.ek_name == keys().ek_name);
  CHECK(found.identity.ak_public == keys().ak_public);
  CHECK(found.identity.srk_name == keys().srk_name);
  CHECK(found.log_index == 0);
  CHECK(found.launch[0] == 4);
  CHECK_FALSE(found.failure);
}

TEST_CASE("store: the greatest sequence of row and log counts, and it never falls") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
  REQUIRE(store->stop_instance({2, "aa", 9}));
  CHECK(only(*store).row.durable->sequence == 9);
  REQUIRE(store->reset_instance({3, "aa", "killed"}, 7));
  CHECK(only(*store).row.durable->sequence == 9);
  REQUIRE(store->note_states({{4, "aa", 12}, {4, "zz", 99}}));
  CHECK(store->log().size() == 5);
  CHECK(only(*store).row.durable->sequence == 12);
  REQUIRE(store->restart_instance(durable_row("aa", 3), durable_create("aa")));
  CHECK(only(*store).row.durable->sequence == 12);
}

TEST_CASE("store: a row that was set back does not hide the sequence that the log has") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
    REQUIRE(store->stop_instance({2, "aa", 9}));
  }
  change(directory, "UPDATE instance SET sequence = 1");
  const auto store = open(directory);
  CHECK(only(*store).row.durable->sequence == 9);
}

TEST_CASE("store: a failed durable instance keeps its reason until it starts again") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
  REQUIRE(store->mark_failed("aa", "slot-a is damaged"));
  CHECK(only(*store).failure == "slot-a is damaged");
  auto restarted = durable_row("aa", 6);
  restarted.container = "c2";
  CHECK(store->restart_instance(restarted, durable_create("aa")).value() == 1);
  CHECK_FALSE(only(*store).failure);
  CHECK(only(*store).row.container == "c2");
  CHECK(only(*store).log_index == 1);
}

TEST_CASE("store: a destroyed durable instance has no key any more") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
    CHECK_FALSE(store->is_destroyed("aa").value());
    CHECK_FALSE(store->is_destroyed("bb").value());
    REQUIRE(store->end_instance({2, "aa", "requested"}, "destroyed"));
    CHECK(store->is_destroyed("aa").value());
    CHECK(store->durable_instances()->empty());
  }
  auto database = Database::open(directory.file());
  REQUIRE(database);
  auto row = (*database)->prepare("SELECT wrapped_key IS NULL FROM instance");
  REQUIRE(row->step().value());
  CHECK(row->integer(0) == 1);
}

TEST_CASE("store: a durable row that does not fit the log is refused by name") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
    REQUIRE(store->append(log::HostStop{1}));
  }
  const auto sql = GENERATE(as<std::string>(), "UPDATE instance SET log_index = 1",
                            "UPDATE instance SET identity = '{}'", "UPDATE instance SET identity = NULL");
  change(directory, sql);
  const auto store = open(directory);
  const auto found = store->durable_instances();
  REQUIRE_FALSE(found);
  CHECK(found.error().kind() == ErrorCode::Corrupt);
  CHECK(found.error().context.find(directory.file()) != std::string::npos);
}

TEST_CASE("store: a commit that fails leaves neither an entry nor a row") {
  const Directory directory;
  const auto store = open(directory);
  REQUIRE(store->add_instance(row("aa"), create("aa"), kNoKeys));
  const LogHead before = head(*store);
  CHECK_FALSE(store->add_instance(row("aa"), create("aa"), kNoKeys));  // the id is a primary key
  CHECK(store->log().size() == 1);
  CHECK(head(*store).root == before.root);
  CHECK(store->append(log::HostStop{1}).value() == 1);
}

TEST_CASE("store: a log that was changed is refused with the file's name, and kept") {
  const Directory directory;
  {
    const auto store = open(directory);
    for (std::uint64_t i = 0; i < 6; ++i)
      REQUIRE(store->append(log::HostStop{i}));
  }
  const auto sql = GENERATE(
      as<std::string>(), "UPDATE entry SET bytes = x'7b7d' WHERE idx = 2", "DELETE FROM entry WHERE idx = 2",
      "DELETE FROM entry WHERE idx = 5", "UPDATE node SET hash = zeroblob(32) WHERE level = 1 AND idx = 0",
      "UPDATE node SET hash = x'00' WHERE level = 0 AND idx = 0", "DELETE FROM node WHERE level = 2",
      "INSERT INTO node VALUES (9, 9, zeroblob(32))", "INSERT INTO entry VALUES (9, x'7b7d')");
  INFO(sql);
  change(directory, sql);
  refused(directory, ErrorCode::Corrupt);
  CHECK(std::filesystem::file_size(directory.file()) > 0);
}

TEST_CASE("database: a file that is not ours is refused and not touched") {
  const Directory directory;
  const std::string text(4096, 'x');
  REQUIRE(replace_file(directory.file(), as_bytes(text), 0600));
  refused(directory, ErrorCode::Corrupt);
  CHECK(as_text(*read_file(directory.file(), 1 << 20)) == text);
}

TEST_CASE("database: damaged pages are refused and not touched") {
  const Directory directory;
  {
    const auto store = open(directory);
    for (std::uint64_t i = 0; i < 500; ++i)
      REQUIRE(store->append(log::HostStop{i}));
  }
  Bytes content = *read_file(directory.file(), 1 << 24);
  REQUIRE(content.size() > 3 * 4096);
  std::fill(content.begin() + 4096, content.begin() + 3 * 4096, std::uint8_t{0x5a});
  REQUIRE(replace_file(directory.file(), content, 0600));
  refused(directory, ErrorCode::Corrupt);
  CHECK(*read_file(directory.file(), 1 << 24) == content);
}

TEST_CASE("database: another program's database and a newer schema are refused") {
  const Directory directory;
  { open(directory); }
  const auto [sql, code] =
      GENERATE(table<std::string, ErrorCode>({{"PRAGMA user_version = 5", ErrorCode::Unsupported},
                                              {"PRAGMA application_id = 1", ErrorCode::Corrupt}}));
  change(directory, sql);
  refused(directory, code);
}

TEST_CASE("database: a file of schema version 1 keeps its log and its rows, and gets what later ones added") {
  const Directory directory;
  const std::string entry = log::serialize(create("aa"));
  {
    sqlite3* handle = nullptr;
    REQUIRE(sqlite3_open(directory.file().c_str(), &handle) == SQLITE_OK);
    const std::string leaf = to_hex(log::leaf_hash(as_bytes(entry)));
    const std::string sql = std::string(kVersion1) + "INSERT INTO entry VALUES (0, CAST('" + entry +
                            "' AS BLOB)); INSERT INTO node VALUES (0, 0, x'" + leaf +
                            "'); INSERT INTO instance VALUES ('aa', 'old', 1000, 1, NULL, NULL, NULL, "
                            "'running', NULL, 0);";
    CHECK(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK);
    sqlite3_close(handle);
  }
  {
    const auto store = open(directory);
    REQUIRE(store->log().size() == 1);
    CHECK(as_text(*store->log().entry(0)) == entry);
    CHECK(store->end_left_overs(7).value() == 1);
    CHECK(store->add_instance(row("bb"), create("bb"), kNoKeys));
  }
  const auto database = Database::open(directory.file());  // as of today
  REQUIRE(database);
  auto rows = (*database)->prepare(
      "SELECT id, name, state, durable, identity IS NULL, wrapped_key IS NULL, sequence IS NULL, "
      "runtime IS NULL, limits IS NULL FROM instance WHERE id = 'aa'");
  REQUIRE(rows);
  REQUIRE(rows->step().value());
  CHECK(rows->text(1) == "old");
  CHECK(rows->text(2) == "destroyed");
  CHECK(rows->integer(3) == 0);
  for (int column = 4; column < 9; ++column)
    CHECK(rows->integer(column) == 1);
}

TEST_CASE("database: a file of schema version 2 keeps its instances, which have no limits of their own") {
  const Directory directory;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(durable_row("aa", 5), durable_create("aa"), keys()));
  }
  change(directory, "ALTER TABLE instance DROP COLUMN limits; DROP TABLE enrolment; PRAGMA user_version = 2");
  const auto store = open(directory);
  const auto found = only(*store);
  CHECK(found.row.id == "aa");
  CHECK(found.row.durable->sequence == 5);
  CHECK(found.row.limits.empty());
  REQUIRE(store->add_instance(row("bb"), create("bb"), kNoKeys));
}

TEST_CASE(
    "store: limits that were set come back, of a running instance, too, and can be changed at a start") {
  const Directory directory;
  InstanceRow with = durable_row("aa", 5);
  with.limits.values[0] = 7;
  with.limits.by_operator = true;
  {
    const auto store = open(directory);
    REQUIRE(store->add_instance(with, durable_create("aa"), keys(), "{}"));
    const auto running = store->left_running();
    REQUIRE(running);
    REQUIRE(running->size() == 1);
    CHECK(running->front().row.limits.values == with.limits.values);
    CHECK(only(*store).row.limits.by_operator);
    with.limits.values[1] = 3;
    REQUIRE(store->restart_instance(with, durable_create("aa")));
  }
  CHECK(only(*open(directory)).row.limits.values == with.limits.values);
  change(directory, "UPDATE instance SET limits = '{}'");
  const auto store = open(directory);
  CHECK(store->durable_instances().error().kind() == ErrorCode::Corrupt);
  CHECK_FALSE(store->left_running());
}

TEST_CASE("database: the file is its owner's alone") {
  const Directory directory;
  { open(directory); }
  const auto mode = std::filesystem::status(directory.file()).permissions();
  CHECK(mode == (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
}

TEST_CASE("store: an enrolment is kept, and one by the same authority takes its place") {
  const Directory directory;
  const tpm::Sha256 one = tpm::sha256(as_bytes("one")), two = tpm::sha256(as_bytes("two"));
  {
    const auto store = open(directory);
    CHECK(store->enrolments().value().empty());
    REQUIRE(store->keep_enrolment(one, {Bytes(3, 1), Bytes(3, 2)}));
    REQUIRE(store->keep_enrolment(two, {Bytes(3, 3), Bytes(3, 4)}));
    REQUIRE(store->keep_enrolment(one, {Bytes(3, 5), Bytes(3, 6)}));
  }
  const auto store = open(directory);
  const auto found = store->enrolments().value();
  REQUIRE(found.size() == 2);
  const auto has = [&](std::uint8_t statement, std::uint8_t signature) {
    return std::any_of(found.begin(), found.end(), [&](const auto& each) {
      return each.statement == Bytes(3, statement) && each.signature == Bytes(3, signature);
    });
  };
  CHECK(has(3, 4));
  CHECK(has(5, 6));
}

TEST_CASE("store: more authorities than evidence can name are refused, and nothing is lost") {
  const Directory directory;
  const auto store = open(directory);
  for (std::size_t i = 0; i < evidence::kMaxEnrolments; ++i)
    REQUIRE(store->keep_enrolment(tpm::sha256(Bytes(1, static_cast<std::uint8_t>(i))), {Bytes(1), Bytes(1)}));
  CHECK(store->keep_enrolment(tpm::sha256(Bytes(1, 99)), {Bytes(1), Bytes(1)}).error().kind() ==
        ErrorCode::Exhausted);
  CHECK(store->enrolments().value().size() == evidence::kMaxEnrolments);
  CHECK(store->keep_enrolment(tpm::sha256(Bytes(1, 0)), {Bytes(1), Bytes(1)}));
}
