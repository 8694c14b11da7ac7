// SPDX-License-Identifier: Apache-2.0
// Limits and use through the API: who may set them, that they last, and that an engine that does not answer
// holds up nobody.
#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/engine.h"
#include "tests/support/skip.h"

#include <sys/stat.h>

#include <deque>
#include <future>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr const char* kNonce = R"({"nonce":"0011223344556677"})";

constexpr uid_t kAlice = 54331;

json::Value show(const Daemon& daemon, const std::string& id) {
  return call(daemon, "GET", "/v1/instances/" + id);
}
std::uint64_t limit(const Daemon& daemon, const std::string& id, const char* name) {
  return show(daemon, id)["limits"][name].get<std::uint64_t>();
}
std::string metrics(const Daemon& daemon) {
  const auto answer = daemon.client().call("GET", "/metrics");
  REQUIRE(answer);
  return *answer;
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A process that does nothing until this ends.
class Stopped {
 public:
  explicit Stopped(pid_t pid) : pid_(pid) { REQUIRE(::kill(pid_, SIGSTOP) == 0); }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;
  ~Stopped() { go_on(); }
  void go_on() { ::kill(pid_, SIGCONT); }

 private:
  pid_t pid_;
};

}  // namespace

TEST_CASE("limits: an instance has the defaults of its vtpmd, or what an operator has set") {
  const Place place;
  const auto daemon =
      Daemon::start(place, "embedded", {"--limit", "spaces=100", "--limit", "nv_bytes=20000"});
  REQUIRE(daemon->ready());
  const auto plain = create(*daemon);
  CHECK(limit(*daemon, plain, "spaces") == 100);
  CHECK(limit(*daemon, plain, "nv_bytes") == 20000);
  CHECK(limit(*daemon, plain, "commands_per_second") == 10000);
  const auto other = create(*daemon, R"({"limits":{"spaces":300,"busy_us_per_second":0}})");
  CHECK(limit(*daemon, other, "spaces") == 300);
  CHECK(limit(*daemon, other, "busy_us_per_second") == 0);
  CHECK(limit(*daemon, other, "nv_bytes") == 20000);
  for (const auto* body : {R"({"limits":{"spaces":0}})", R"({"limits":{"space":1}})", R"({"limits":7})"})
    CHECK(status_of(*daemon, "POST", "/v1/instances", body) == 400);
}

TEST_CASE("limits: another user may lower them, and no more") {
  if (::geteuid() != 0) VTPM_SKIP("another user needs root");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  REQUIRE(::chmod((place.runtime() + "/vtpmd.sock").c_str(), 0666) == 0);
  const auto status = [&](const std::string& body) {
    int hundreds = as_user(kAlice, [&] {
      const auto answer = daemon->client().send("POST", "/v1/instances", body);
      return answer ? static_cast<int>(answer->status - 200) : 255;
    });
    return hundreds + 200;
  };
  CHECK(status(R"({"limits":{"spaces":10}})") == 201);
  CHECK(status(R"({"limits":{"spaces":257}})") == 403);
  CHECK(status(R"({"limits":{"busy_us_per_second":0}})") == 403);
  CHECK(status(R"({"limits":{"nv_bytes":0}})") == 403);
}

TEST_CASE("limits: they hold, and use is told") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto id = create(*daemon, R"({"limits":{"busy_us_per_second":1,"busy_burst_us":1}})");
  auto node = device::make_fuse_node();
  REQUIRE(node);
  const std::string path = place.directory / "node";
  REQUIRE(send(place, control::AttachRequest{id, NodeKind::Managed, path}, {node->server.get()}));
  REQUIRE(device::place(node->mount, path));
  {
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    REQUIRE(fd);
    const Bytes first = create_primary(kOwner), second = get_random(8);
    Bytes response(4096);
    REQUIRE(write_all(fd.get(), first));
    REQUIRE(eventually([&] { return ::read(fd.get(), response.data(), response.size()) > 10; }));
    REQUIRE(write_all(fd.get(), second));
    const auto use = show(*daemon, id)["use"];
    CHECK(use["commands"] == 1);
    CHECK(use["throttled"] == 1);
    CHECK(use["busy_us"] > 0);
    CHECK(use["spaces"] == 1);
    CHECK(use["nv_bytes"] > 1000);
    const std::string text = metrics(*daemon);
    CHECK(has(text, "vtpm_instance_throttled_total{instance=\"" + id + "\"} 1\n"));
    CHECK(has(text, "vtpm_instance_commands_total{instance=\"" + id + "\"} 1\n"));
    CHECK(has(text, "vtpm_instance_busy_seconds_total{instance=\"" + id + "\"} 0.0"));
    // Evidence comes all the same: vtpmd's own commands are exempt.
    CHECK(daemon->client().call("POST", "/v1/instances/" + id + "/evidence",
                                R"({"nonce":"0011223344556677"})"));
  }
  (void)device::remove_node(path);
}

TEST_CASE("limits: a user's metrics have no other user's instances") {
  if (::geteuid() != 0) VTPM_SKIP("another user needs root");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  REQUIRE(::chmod((place.runtime() + "/vtpmd.sock").c_str(), 0666) == 0);
  const auto id = create(*daemon);
  CHECK(has(metrics(*daemon), id));
  CHECK(as_user(kAlice, [&] {
          const auto answer = daemon->client().call("GET", "/metrics");
          return answer && has(*answer, "vtpm_instances_running 1") && !has(*answer, id) ? 0 : 1;
        }) == 0);
}

TEST_CASE("limits: an engine that does not answer holds up neither inspect nor the metrics, and lives on") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto hung = create(*daemon), other = create(*daemon);
  const auto pid = show(*daemon, hung)["pid"].get<pid_t>();
  if (::geteuid() != 0 && ::kill(pid, 0) != 0) VTPM_SKIP("the engine cannot be stopped");
  {
    Stopped stopped(pid);
    for (int i = 0; i < 3; ++i) {
      const auto shown = show(*daemon, hung);
      CHECK(shown["state"] == "running");
      CHECK(shown["use"].is_null());
      CHECK(shown["limits"].is_object());
      CHECK(show(*daemon, other)["use"].is_object());
      const std::string text = metrics(*daemon);
      CHECK(has(text, "vtpm_instance_commands_total{instance=\"" + other + "\"}"));
      CHECK_FALSE(has(text, "vtpm_instance_commands_total{instance=\"" + hung + "\"}"));
      CHECK(has(text, "vtpm_instances_running 2\n"));
    }
    // Whoever wants something of it is told so.
    CHECK(status_of(*daemon, "POST", "/v1/instances/" + hung + "/evidence", kNonce) == 409);
  }
  // What it answers too late is nobody's answer.
  CHECK(eventually([&] { return show(*daemon, hung)["use"].is_object(); }));
  CHECK(show(*daemon, hung)["pid"] == pid);
  CHECK(daemon->client().call("POST", "/v1/instances/" + hung + "/evidence", kNonce));
}

TEST_CASE("limits: many engines that do not answer hold up neither others' tenants nor the end of vtpmd") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto idle = create(*daemon);
  std::vector<std::string> hung;
  std::deque<Stopped> stopped;
  for (int i = 0; i < 24; ++i) {
    hung.push_back(create(*daemon, i % 2 == 0 ? "{}" : R"({"durable":true})"));
    stopped.emplace_back(show(*daemon, hung.back())["pid"].get<pid_t>());
  }
  const auto evidence_of = [&daemon](const std::string& id) {
    const auto answer = daemon->client().send("POST", "/v1/instances/" + id + "/evidence", kNonce);
    return answer ? answer->status : 0;
  };
  std::vector<std::future<unsigned>> refused;
  for (const auto& id : hung)
    refused.push_back(std::async(std::launch::async, evidence_of, id));
  std::this_thread::sleep_for(std::chrono::seconds(1));  // until most of them are waited for
  const auto attach = [&place, &idle, fuse = open_device("/dev/fuse")] {
    return send(place, control::AttachRequest{idle, NodeKind::Managed, "/node"}, {fuse.get()}).has_value();
  };
  const auto in_time = [](const auto& future) {
    return future.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  };
  auto attached = std::async(std::launch::async, std::cref(attach));
  CHECK(in_time(attached));
  auto evidence = std::async(std::launch::async, evidence_of, idle);
  CHECK(in_time(evidence));
  CHECK(evidence.get() == 200);
  CHECK(attached.get());
  for (auto& one : refused)
    CHECK(one.get() == 409);
  // Whoever owes an answer is not waited for again.
  auto end = std::async(std::launch::async, [&daemon] { return daemon->stop(SIGTERM); });
  CHECK(in_time(end));
  CHECK(end.get() == 0);
}

TEST_CASE("limits: a durable instance keeps its own over restarts, and takes the rest from the next vtpmd") {
  const Place place;
  std::string id;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon, R"({"name":"kept","durable":true,"limits":{"spaces":7,"nv_bytes":0}})");
    daemon->stop(SIGTERM);
  }
  const auto daemon = Daemon::start(place, "embedded", {"--limit", "objects_per_space=5"});
  REQUIRE(daemon->ready());
  REQUIRE(eventually([&] { return show(*daemon, id)["state"] == "running"; }));
  CHECK(limit(*daemon, id, "spaces") == 7);
  CHECK(limit(*daemon, id, "nv_bytes") == 0);
  CHECK(limit(*daemon, id, "objects_per_space") == 5);
}

TEST_CASE("limits: an engine that is taken over is told those that have changed") {
  const Place place;
  std::string set, plain;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    set = create(*daemon, R"({"limits":{"spaces":7}})");
    plain = create(*daemon, R"({"durable":true,"name":"kept"})");
    daemon->stop(SIGUSR2);
  }
  for (const std::string spaces : {"9", "11"}) {
    const auto daemon = Daemon::start(place, "embedded", {"--limit", "spaces=" + spaces});
    REQUIRE(daemon->ready());
    CHECK(limit(*daemon, set, "spaces") == 7);
    CHECK(limit(*daemon, plain, "spaces") == std::stoul(spaces));
    CHECK(show(*daemon, plain)["use"].is_object());
    daemon->stop(spaces == "9" ? SIGKILL : SIGTERM);
  }
}

TEST_CASE("limits: a durable instance that is started again takes new ones") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = [&] {
    Container container;
    auto node = device::make_fuse_node();
    REQUIRE(node);
    const UniqueFd config = config_file();
    auto request = launch_of("kept");
    request.durable = true;
    const auto launched = send(place, request, {container.pidfd(), config.get(), node->server.get()});
    REQUIRE(launched);
    return *launched;
  }();
  REQUIRE(eventually([&] { return show(*daemon, id)["state"] == "stopped"; }));
  CHECK(limit(*daemon, id, "spaces") == 256);
  CHECK(show(*daemon, id)["use"].is_null());
  CHECK(create(*daemon, R"({"name":"kept","durable":true,"limits":{"spaces":9}})") == id);
  CHECK(limit(*daemon, id, "spaces") == 9);
}
