// SPDX-License-Identifier: Apache-2.0
// Start, stop and start again: what is refused, and what survives.
#include "tests/integration/supervisor/json_call.h"

#include <vtpm/log/entry.h>
#include <vtpm/log/merkle.h>
#include <vtpm/os/file.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>

using namespace vtpm;
using namespace vtpm::test;

namespace {

bool exited_with(int status, int expected) {
  return WIFEXITED(status) && WEXITSTATUS(status) == expected;
}

std::vector<std::string> log_entries(const Daemon& daemon) {
  std::vector<std::string> found;
  const auto answer = call(daemon, "GET", "/v1/log/entries");
  for (const auto& entry : answer["entries"])
    found.push_back(entry["entry"]);
  return found;
}

std::map<std::string, Bytes> files_of(const std::string& directory) {
  std::map<std::string, Bytes> found;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    found[entry.path()] = *read_file(entry.path(), 1 << 24);
  return found;
}

tpm::Sha256 digest(const json::Value& text) {
  return *tpm::sha256_from_hex(text.get<std::string>());
}

// The log of now is a continuation of what `before` was the head of.
void check_consistent(const Daemon& daemon, const json::Value& before) {
  const auto head = call(daemon, "GET", "/v1/log/head");
  const std::uint64_t from = before["size"], to = head["size"];
  REQUIRE(to > from);
  const auto proof =
      call(daemon, "GET", "/v1/log/proof?from=" + std::to_string(from) + "&to=" + std::to_string(to));
  log::Path path;
  for (const auto& hash : proof["path"])
    path.push_back(digest(hash));
  CHECK(log::verify_consistency(from, digest(before["root"]), to, digest(head["root"]), path));
}

}  // namespace

TEST_CASE("vtpmd: SIGTERM destroys the instances in order, and the log says so") {
  const Place place;
  json::Value before;
  std::string id;
  pid_t engine = 0;
  {
    const auto daemon = Daemon::start(place);
    INFO(place.log());
    REQUIRE(daemon->ready());
    id = create(*daemon);
    engine = call(*daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
    before = call(*daemon, "GET", "/v1/log/head");
    CHECK(exited_with(daemon->stop(SIGTERM), 0));
  }
  CHECK(::kill(engine, 0) != 0);
  CHECK_FALSE(place.has_keeper());
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].empty());
  const auto log = log_entries(*daemon);
  REQUIRE(log.size() == 5);  // host.start, instance.create, instance.destroy, host.stop, host.start
  const auto destroyed = log::parse_entry(as_bytes(log[2]));
  REQUIRE(destroyed);
  CHECK(std::get<log::InstanceDestroy>(*destroyed).instance == id);
  CHECK(std::get<log::InstanceDestroy>(*destroyed).reason == "supervisor-stopped");
  CHECK(std::holds_alternative<log::HostStop>(*log::parse_entry(as_bytes(log[3]))));
  check_consistent(*daemon, before);

  create(*daemon);
  const std::string last = log_entries(*daemon).back();
  const auto created = log::parse_entry(as_bytes(last));
  REQUIRE(created);
  CHECK(std::get<log::InstanceCreate>(*created).host_start == 4);
  CHECK(std::get<log::InstanceCreate>(*created).owner == ::geteuid());
}

TEST_CASE(
    "vtpmd: after the death of vtpmd and its keeper the instances are marked destroyed, their engines are "
    "gone, "
    "and the log goes on") {
  const Place place;
  json::Value before;
  std::string id;
  pid_t engine = 0;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon);
    engine = call(*daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
    before = call(*daemon, "GET", "/v1/log/head");
    daemon->stop(SIGKILL);
  }
  place.end_keeper();
  CHECK(eventually([&] { return ::kill(engine, 0) != 0; }));
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  CHECK(status_of(*daemon, "GET", "/v1/instances/" + id) == 404);
  const auto log = log_entries(*daemon);
  REQUIRE(log.size() == 4);
  const auto destroyed = log::parse_entry(as_bytes(log[2]));
  REQUIRE(destroyed);
  CHECK(std::get<log::InstanceDestroy>(*destroyed).reason == "supervisor-restarted");
  check_consistent(*daemon, before);
}

TEST_CASE("vtpmd: the anchor's key is the same after a restart") {
  const Place place;
  json::Value first;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    first = call(*daemon, "GET", "/v1/anchor")["ak_name"];
    CHECK(exited_with(daemon->stop(SIGINT), 0));
  }
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  CHECK(call(*daemon, "GET", "/v1/anchor")["ak_name"] == first);
}

TEST_CASE("vtpmd: a second daemon in the same directories is refused, the first serves on") {
  const Place place;
  const auto first = Daemon::start(place);
  REQUIRE(first->ready());
  const auto second = Daemon::start(place);
  REQUIRE_FALSE(second->ready());
  CHECK_FALSE(exited_with(second->stop(0), 0));
  CHECK(place.log().find("another vtpmd") != std::string::npos);
  CHECK(call(*first, "GET", "/healthz")["status"] == "ok");
}

TEST_CASE("vtpmd: a damaged database is refused by name and kept") {
  const Place place;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    CHECK(exited_with(daemon->stop(SIGTERM), 0));
  }
  const std::string file = place.state() + "/vtpm.db";
  Bytes content = *read_file(file, 1 << 24);
  std::fill(content.begin() + 100, content.end(), std::uint8_t{0xa5});
  REQUIRE(replace_file(file, content, 0666));
  const auto daemon = Daemon::start(place);
  CHECK_FALSE(daemon->ready());
  CHECK_FALSE(exited_with(daemon->stop(0), 0));
  CHECK(place.log().find(file) != std::string::npos);
  CHECK(*read_file(file, 1 << 24) == content);
}

TEST_CASE("vtpmd: state that was lost is not made again") {
  const Place place;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    CHECK(exited_with(daemon->stop(SIGTERM), 0));
  }
  const auto [name, truncated] =
      GENERATE(table<std::string, bool>({{"vtpm.db", true}, {"vtpm.db", false}, {"anchor.json", false}}));
  const std::string file = place.state() + "/" + name;
  if (truncated)
    std::filesystem::resize_file(file, 0);
  else
    std::filesystem::remove(file);
  const auto before = files_of(place.state());
  const auto daemon = Daemon::start(place);
  CHECK_FALSE(daemon->ready());
  const int status = daemon->stop(0);
  CHECK(WIFEXITED(status));
  CHECK_FALSE(exited_with(status, 0));
  CHECK(place.log().find(file + " is missing") != std::string::npos);
  CHECK(files_of(place.state()) == before);
}

TEST_CASE("vtpmd: an empty database alone is a first start that was cut short") {
  const Place place;
  REQUIRE(replace_file(place.state() + "/vtpm.db", {}, 0666));
  REQUIRE(
      (::geteuid() != 0 || ::chown((place.state() + "/vtpm.db").c_str(), daemon_uid(), daemon_uid()) == 0));
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  CHECK(daemon->ready());
}

TEST_CASE("vtpmd: an anchor or an engine that is not there is a clear refusal") {
  const Place place;
  const std::string missing = place.directory / "nothing";
  const auto [anchor, more, named] = GENERATE_COPY(table<std::string, std::vector<std::string>, std::string>(
      {{"swtpm:path=" + missing, {}, "anchor"}, {"embedded", {"--engine", missing}, missing}}));
  const auto daemon = Daemon::start(place, anchor, more);
  CHECK_FALSE(daemon->ready());
  CHECK_FALSE(exited_with(daemon->stop(0), 0));
  CHECK(place.log().find(named) != std::string::npos);
}

TEST_CASE("vtpmd: usage errors exit with 2, --help with 0") {
  const Place place;
  const auto wrong = Daemon::start(place, "embedded", {"--no-such-option"});
  CHECK(exited_with(wrong->stop(0), 2));
  const auto help = Daemon::start(place, "embedded", {"--help"});
  CHECK(exited_with(help->stop(0), 0));
}
