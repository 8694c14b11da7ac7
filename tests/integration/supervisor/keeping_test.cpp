// SPDX-License-Identifier: Apache-2.0
// What the keeper has is neither lost nor held for ever: when it does not answer in time, when it dies with
// vtpmd, when vtpmd cannot start.
#include "tests/integration/supervisor/json_call.h"

#include <vtpm/os/file.h>

#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

// The processes of the place's vtpm-engine program that run now: zygotes, engines; or keepers alone.
std::vector<pid_t> processes(const Place& place, std::string_view role) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code error;
    if (std::filesystem::read_symlink(entry.path() / "exe", error) != place.programs() + "/vtpm-engine")
      continue;
    const auto line = read_file(entry.path() / "cmdline", 4096);
    if (line && as_text(*line).find(role) != std::string_view::npos)
      found.push_back(static_cast<pid_t>(std::stol(entry.path().filename())));
  }
  return found;
}

pid_t keeper_of(const Place& place) {
  const auto keepers = processes(place, "keeper");
  REQUIRE(keepers.size() == 1);
  return keepers.front();
}

std::unique_ptr<Daemon> start(const Place& place) {
  auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  return daemon;
}

bool is_running(const Daemon& daemon, const std::string& id) {
  return call(daemon, "GET", "/v1/instances/" + id)["state"] == "running";
}

bool says(const Place& place, std::string_view text) {
  return place.log().find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("keeping: a keeper that was late once has everything, lets go of what ends, and is not replaced") {
  const Place place;
  auto daemon = start(place);
  const std::string before = create(*daemon), ending = create(*daemon);
  const pid_t keeper = keeper_of(place);
  REQUIRE(::kill(keeper, SIGSTOP) == 0);
  const std::string meanwhile = create(*daemon);  // as late as the keeper's deadline
  CHECK(says(place, "instance " + meanwhile + " would end with this vtpmd"));
  REQUIRE(::kill(keeper, SIGCONT) == 0);
  REQUIRE(eventually([&] { return says(place, "the keeper has everything again"); }));
  const std::string later = create(*daemon);
  CHECK_FALSE(says(place, "instance " + later + " would end with this vtpmd"));
  call(*daemon, "DELETE", "/v1/instances/" + ending);
  CHECK_FALSE(says(place, "no orderly end"));
  CHECK(keeper_of(place) == keeper);
  daemon->stop(SIGKILL);
  daemon = start(place);
  INFO(place.log());
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].size() == 3);
  for (const std::string& id : {before, meanwhile, later})
    CHECK(is_running(*daemon, id));
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(eventually([&] { return processes(place, "").empty(); }));
}

TEST_CASE("keeping: with vtpmd and the keeper the instances end, and the next vtpmd says so and goes on") {
  const Place place;
  auto daemon = start(place);
  const std::string ephemeral = create(*daemon);
  const std::string durable = create(*daemon, R"({"durable":true,"name":"keep"})");
  REQUIRE(::kill(keeper_of(place), SIGSTOP) == 0);  // so that vtpmd does not start another
  daemon->stop(SIGKILL);
  REQUIRE(::kill(keeper_of(place), SIGKILL) == 0);
  CHECK(eventually([&] { return processes(place, "").empty(); }));
  daemon = start(place);
  INFO(place.log());
  CHECK(status_of(*daemon, "GET", "/v1/instances/" + ephemeral) == 404);
  CHECK(eventually([&] { return is_running(*daemon, durable); }));
  CHECK(says(place, "1 instances of an earlier vtpmd are marked destroyed"));
  daemon->stop(SIGKILL);
  daemon = start(place);
  // It may have been killed before the keeper had the new engine.
  CHECK(eventually([&] { return is_running(*daemon, durable); }));
}

TEST_CASE("keeping: a start that fails leaves what is held alive, and the next start takes it back") {
  const Place place;
  auto daemon = start(place);
  const std::string id = create(*daemon);
  const auto pid = call(*daemon, "GET", "/v1/instances/" + id)["pid"];
  daemon->stop(SIGKILL);
  const auto refused = Daemon::start(place, "swtpm:path=/nonexistent/socket");
  CHECK_FALSE(refused->ready());
  CHECK(says(place, "the anchor cannot be opened"));
  daemon = start(place);
  CHECK(is_running(*daemon, id));
  CHECK(call(*daemon, "GET", "/v1/instances/" + id)["pid"] == pid);
}

TEST_CASE("keeping: vtpmd with another state directory refuses to start, and says who holds what and why") {
  Place place;
  auto daemon = start(place);
  const std::string id = create(*daemon);
  daemon->stop(SIGKILL);
  const std::string keeper = std::to_string(keeper_of(place));
  std::filesystem::rename(place.state(), place.directory / "theirs");
  std::filesystem::create_directory(place.state());
  std::filesystem::permissions(place.state(), std::filesystem::perms::all);
  const auto refused = Daemon::start(place);
  CHECK_FALSE(refused->ready());
  INFO(place.log());
  CHECK(says(place, "process " + keeper + " (vtpm-engine keeper) at " + place.runtime() + "/keeper.sock"));
  CHECK(says(place, place.state() + "/vtpm.db"));
  CHECK(says(place, "SIGTERM"));
  std::filesystem::remove_all(place.state());
  std::filesystem::rename(place.directory / "theirs", place.state());
  daemon = start(place);
  CHECK(is_running(*daemon, id));
}

TEST_CASE("keeping: beside a keeper that does not answer no vtpmd starts, and it says which process it is") {
  const Place place;
  auto daemon = start(place);
  const std::string id = create(*daemon);
  const pid_t keeper = keeper_of(place);
  daemon->stop(SIGKILL);
  REQUIRE(::kill(keeper, SIGSTOP) == 0);
  const auto refused = Daemon::start(place);
  CHECK_FALSE(refused->ready());
  CHECK(says(place, "process " + std::to_string(keeper) + " (vtpm-engine keeper)"));
  REQUIRE(::kill(keeper, SIGCONT) == 0);
  daemon = start(place);
  CHECK(is_running(*daemon, id));
}

namespace {

// Instances whose engines are stopped when vtpmd is killed, and continued at the end.
struct Frozen {
  std::vector<std::string> ids;
  std::vector<pid_t> engines;

  Frozen(Daemon& daemon, const std::vector<std::string>& orders) {
    for (const std::string& order : orders) {
      ids.push_back(create(daemon, order));
      engines.push_back(call(daemon, "GET", "/v1/instances/" + ids.back())["pid"].get<pid_t>());
    }
    daemon.stop(SIGKILL);
    stop();
  }
  ~Frozen() { go_on(); }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

  void stop() const {
    for (const pid_t engine : engines)
      REQUIRE(::kill(engine, SIGSTOP) == 0);
  }
  void go_on() const {
    for (const pid_t engine : engines)
      ::kill(engine, SIGCONT);
  }
  bool are(const Daemon& daemon, std::string_view state) const {
    return std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
      return call(daemon, "GET", "/v1/instances/" + id)["state"] == state;
    });
  }
};

}  // namespace

TEST_CASE("keeping: engines that do not answer hold up neither the API nor the other instances") {
  const Place place;
  auto daemon = start(place);
  const std::string well = create(*daemon);
  const Frozen frozen(*daemon, std::vector<std::string>(8, "{}"));
  daemon = start(place);
  INFO(place.log());
  CHECK(says(place, "engines have not answered yet"));
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].size() == 9);
  CHECK(is_running(*daemon, create(*daemon)));
  CHECK(is_running(*daemon, well));
  CHECK(frozen.are(*daemon, "starting"));
  // Nobody knows when they answer: it is not waited for.
  const std::string one = "/v1/instances/" + frozen.ids.front();
  CHECK(status_of(*daemon, "POST", one + "/evidence", R"({"nonce":"0011223344556677"})") == 409);
  // But it is noticed when one ends; and whose instance is not wanted any more is ended.
  REQUIRE(::kill(frozen.engines.back(), SIGKILL) == 0);
  const std::string dead = "/v1/instances/" + frozen.ids.back();
  CHECK(eventually([&] { return call(*daemon, "GET", dead)["state"] == "failed"; }));
  call(*daemon, "DELETE", one);
  CHECK(status_of(*daemon, "GET", one) == 404);
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(eventually([&] { return processes(place, "").empty(); }));
}

TEST_CASE("keeping: who asks for what an engine that does not answer serves is told so, and leaves nothing") {
  const Place place;
  auto daemon = start(place);
  const std::string order = R"({"durable":true,"name":"keep"})";
  const Frozen frozen(*daemon, {order});
  daemon = start(place);
  INFO(place.log());
  REQUIRE(eventually([&] { return says(place, "does not answer; it is taken back when it does"); }));
  const std::size_t before = daemon->descriptors();
  for (int i = 0; i < 3; ++i) {
    const auto answer = daemon->client().send("POST", "/v1/instances", order);
    REQUIRE(answer);
    CHECK(answer->status == 409);
    CHECK(answer->body.find("instance " + frozen.ids.front()) != std::string::npos);
    CHECK(answer->body.find("its engine does not answer") != std::string::npos);
  }
  CHECK(eventually([&] { return daemon->descriptors() <= before; }));
  frozen.go_on();
  CHECK(eventually([&] { return frozen.are(*daemon, "running"); }));
  // Who asks while it is between the states has it when its engine answers.
  call(*daemon, "DELETE", "/v1/instances/" + frozen.ids.front());
  CHECK(is_running(*daemon, create(*daemon, order)));
}

TEST_CASE("keeping: an engine that is frozen over several vtpmds is taken back when it answers") {
  const Place place;
  auto daemon = start(place);
  const Frozen frozen(*daemon, {"{}", R"({"durable":true,"name":"keep"})"});
  daemon = start(place);
  INFO(place.log());
  CHECK(frozen.are(*daemon, "starting"));
  CHECK(daemon->stop(SIGUSR2) == 0);
  daemon = start(place);
  CHECK(frozen.are(*daemon, "starting"));
  frozen.go_on();
  CHECK(eventually([&] { return frozen.are(*daemon, "running"); }));
  for (std::size_t i = 0; i < frozen.ids.size(); ++i) {
    const std::string one = "/v1/instances/" + frozen.ids[i];
    CHECK(call(*daemon, "GET", one)["pid"] == frozen.engines[i]);
    call(*daemon, "POST", one + "/evidence", R"({"nonce":"0011223344556677"})");
  }
}

TEST_CASE("keeping: an engine that is free for moments alone is taken back, and what is asked of it done") {
  const Place place;
  auto daemon = start(place);
  const Frozen frozen(*daemon, {"{}", R"({"durable":true,"name":"seldom"})"});
  daemon = start(place);
  INFO(place.log());
  CHECK(frozen.are(*daemon, "starting"));
  // No question that vtpmd asks is answered while it looks, and none sooner than within 800 ms.
  const auto free_for_a_moment = [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    REQUIRE(::kill(daemon->pid(), SIGSTOP) == 0);
    frozen.go_on();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    frozen.stop();
    REQUIRE(::kill(daemon->pid(), SIGCONT) == 0);
    return frozen.are(*daemon, "running");
  };
  bool back = false;
  for (int moments = 0; moments < 15 && !back; ++moments)
    back = free_for_a_moment();
  CHECK(back);
  frozen.go_on();
  for (const std::string& id : frozen.ids)
    call(*daemon, "POST", "/v1/instances/" + id + "/evidence", R"({"nonce":"0011223344556677"})");
}

TEST_CASE("keeping: another keeper has the engines, too, that have not answered yet") {
  const Place place;
  auto daemon = start(place);
  const std::string well = create(*daemon);
  const Frozen frozen(*daemon, {"{}", R"({"durable":true,"name":"keep"})"});
  daemon = start(place);
  INFO(place.log());
  CHECK(frozen.are(*daemon, "starting"));
  REQUIRE(::kill(keeper_of(place), SIGKILL) == 0);
  REQUIRE(eventually([&] { return says(place, "the keeper has everything again"); }));
  CHECK(daemon->stop(SIGUSR2) == 0);
  daemon = start(place);
  CHECK(is_running(*daemon, well));
  CHECK(frozen.are(*daemon, "starting"));
  frozen.go_on();
  CHECK(eventually([&] { return frozen.are(*daemon, "running"); }));
  for (std::size_t i = 0; i < frozen.ids.size(); ++i)
    CHECK(call(*daemon, "GET", "/v1/instances/" + frozen.ids[i])["pid"] == frozen.engines[i]);
}

TEST_CASE("keeping: at a hand-over who waits for the end of an engine that is silent is told to ask again") {
  const Place place;
  auto daemon = start(place);
  std::vector<std::string> orders(6, "{}");
  orders.push_back(R"({"durable":true,"name":"keep"})");
  const Frozen frozen(*daemon, orders);
  daemon = start(place);
  INFO(place.log());
  std::vector<int> answers(orders.size());
  std::vector<std::thread> asking;
  for (std::size_t i = 0; i < answers.size(); ++i)
    asking.emplace_back([&, i, client = daemon->client()] {
      const auto answer = client.call("DELETE", "/v1/instances/" + frozen.ids[i]);
      answers[i] = answer ? 200 : answer.error().kind() == ErrorCode::Unavailable ? 503 : 0;
    });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(daemon->stop(SIGUSR2) == 0);
  for (std::thread& one : asking)
    one.join();
  daemon = start(place);
  frozen.go_on();
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const std::string one = "/v1/instances/" + frozen.ids[i];
    INFO(one << ": " << answers[i]);
    if (answers[i] == 200) {  // it was sooner
      CHECK(status_of(*daemon, "GET", one) == 404);
      continue;
    }
    CHECK(eventually([&] { return is_running(*daemon, frozen.ids[i]); }));
    CHECK(call(*daemon, "GET", one)["pid"] == frozen.engines[i]);
    call(*daemon, "DELETE", one);
  }
}
