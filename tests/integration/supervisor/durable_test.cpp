// SPDX-License-Identifier: Apache-2.0
// Durable instances: what a tenant stored is there after each kind of end, or its absence is said and nothing
// is touched.
#include "tests/integration/supervisor/durable_tenant.h"
#include "tests/support/skip.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

using namespace vtpm;
using namespace vtpm::test;
namespace fs = std::filesystem;

namespace {

std::string problem(const Daemon& daemon, std::string_view method, std::string_view target,
                    std::string_view body = {}) {
  const auto answer = daemon.client().send(method, target, body);
  REQUIRE(answer);
  CHECK(answer->status >= 400);
  return answer->body;
}

}  // namespace

TEST_CASE("durable: an orderly end of vtpmd keeps what was stored, and the log says how much that was") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id;
  json::Value before;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon, kKeep);
    Tenant tenant(place, id);
    tenant.define();
    tenant.store(7);
    before = show(*daemon, id);
    CHECK(before["durable"] == true);
    CHECK(before["storage"]["slots"] == json::Value(slots_of(place, id)));
    for (const auto& slot : slots_of(place, id)) {
      struct stat found {};
      REQUIRE(::stat(slot.c_str(), &found) == 0);
      CHECK((found.st_mode & 07777) == 0600);
    }
    CHECK(daemon->stop(SIGTERM) == 0);
  }
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  REQUIRE(becomes(*daemon, id, "running"));
  const auto after = show(*daemon, id);
  for (const char* same : {"id", "name", "owner_uid", "created", "ek_name", "ak_name", "ek_public"})
    CHECK(after[same] == before[same]);
  CHECK(after["log_index"] > before["log_index"]);
  const auto stops = entries_of<log::InstanceState>(*daemon, id);
  REQUIRE(stops.size() == 1);
  CHECK(after["storage"]["sequence"] >= stops[0].sequence);
  CHECK(stops[0].sequence > before["storage"]["sequence"].get<std::uint64_t>());
  CHECK(entries_of<log::InstanceCreate>(*daemon, id).size() == 2);
  CHECK(entries_of<log::InstanceDestroy>(*daemon, id).empty());
  Tenant tenant(place, id);
  CHECK(tenant.stored() == Bytes(8, 7));
  const auto evidence = call(*daemon, "POST", "/v1/instances/" + id + "/evidence",
                             R"({"nonce":"00112233445566778899aabbccddeeff"})");
  CHECK(evidence.is_object());
  CHECK(status_of(*daemon, "POST", "/v1/instances", kKeep) == 409);
}

TEST_CASE("durable: SIGKILL of vtpmd loses nothing that was acknowledged") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon, kKeep);
    Tenant tenant(place, id);
    tenant.define();
    for (u8 value = 1; value < 20; ++value)
      tenant.store(value);
    daemon->stop(SIGKILL);
  }
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  REQUIRE(becomes(*daemon, id, "running"));
  Tenant tenant(place, id);
  CHECK(tenant.stored() == Bytes(8, 19));
}

TEST_CASE(
    "durable: an engine that dies is followed by another, after a TPM Reset, and its neighbour sees "
    "nothing") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon, kKeep), other = create(*daemon, R"({"name":"other"})");
  Tenant tenant(place, id), neighbour(place, other, "other");
  tenant.define();
  tenant.store(3);
  const auto before = show(*daemon, id);
  const pid_t neighbours = show(*daemon, other)["pid"];
  REQUIRE(::kill(before["pid"].get<pid_t>(), SIGKILL) == 0);
  REQUIRE(eventually([&] {
    const auto now = show(*daemon, id);
    return now["state"] == "running" && now["pid"] != before["pid"];
  }));
  const auto resets = entries_of<log::InstanceReset>(*daemon, id);
  REQUIRE(resets.size() == 1);
  CHECK(has(resets[0].reason, "signal 9"));
  CHECK(entries_of<log::InstanceDestroy>(*daemon, id).empty());
  const auto after = show(*daemon, id);
  CHECK(after["log_index"] == before["log_index"]);  // the same launch, measured again
  CHECK(after["ak_name"] == before["ak_name"]);
  CHECK(has(place.log(), "instance " + id + " continues after a TPM Reset"));
  // The node is served again (one clean error at most), or it is said to be gone.
  REQUIRE(after["nodes"].size() == 1);
  if (after["nodes"][0]["state"] == "served") {
    (void)tenant.command(get_random(4));    // may be the one that fails
    CHECK(tenant.stored() == Bytes(8, 3));  // by the same open file
  }
  tenant.close();  // the raw node has one opener
  Tenant again(place, id, "again");
  CHECK(again.command(get_random(4)).size() >= 10);
  CHECK(code_of(neighbour.command(get_random(4))) == 0);
  CHECK(show(*daemon, other)["pid"] == neighbours);
}

TEST_CASE("durable: an engine that dies again and again is given up, and started by its next use") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon, kKeep);
  for (int death = 0; death < 6; ++death) {
    REQUIRE(becomes(*daemon, id, "running"));
    const pid_t engine = show(*daemon, id)["pid"];
    REQUIRE(::kill(engine, SIGKILL) == 0);
    REQUIRE(eventually([&] { return show(*daemon, id)["pid"] != engine; }));
  }
  REQUIRE(becomes(*daemon, id, "failed"));
  CHECK(has(show(*daemon, id)["reason"], "died within 60 s"));
  CHECK(entries_of<log::InstanceReset>(*daemon, id).size() == 5);
  const Tenant tenant(place, id);
  CHECK(state(*daemon, id) == "running");
}

TEST_CASE("durable: a container's name finds its TPM again, one container at a time") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const bool named = GENERATE(true, false);
  const UniqueFd config = config_file();
  std::string id;
  for (int run = 0; run < 3; ++run) {
    Container container;
    auto node = device::make_fuse_node();
    REQUIRE(node);
    auto request = launch_of(named ? "c" + std::to_string(run) : "c1");
    request.durable = true;
    if (named) request.name = "web";
    const auto launched = send(place, request, {container.pidfd(), config.get(), node->server.get()});
    INFO((launched ? "" : launched.error().context));
    REQUIRE(launched);
    if (run == 0) id = *launched;
    CHECK(*launched == id);
    CHECK(show(*daemon, id)["container"] == request.container);
    CHECK(show(*daemon, id)["name"] == (named ? "web" : "c1"));
    const Container second;
    auto another = request;
    another.container = named ? "another" : "c1";
    CHECK(send(place, another, {second.pidfd(), config.get(), node->server.get()}).error().kind() ==
          ErrorCode::Conflict);
    another.durable = false;
    CHECK(send(place, another, {second.pidfd(), config.get(), node->server.get()}).error().kind() ==
          ErrorCode::Conflict);
    if (run == 0) CHECK(send(place, control::ReleaseRequest{request.container}, {}));  // poststop
    container.end();
    REQUIRE(becomes(*daemon, id, "stopped"));
  }
  CHECK(entries_of<log::InstanceCreate>(*daemon, id).size() == 3);
  CHECK(entries_of<log::InstanceState>(*daemon, id).size() == 3);
  CHECK(status_of(*daemon, "POST", "/v1/instances/" + id + "/evidence", R"({"nonce":"0011223344556677"})") ==
        409);
}

TEST_CASE("durable: destroy removes the files, when the log says so, and the name is free") {
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon, kKeep), kept = create(*daemon, R"({"durable":true})");
  const auto answer = call(*daemon, "DELETE", "/v1/instances/keep");
  CHECK(answer["state"] == "destroyed");
  CHECK(status_of(*daemon, "GET", "/v1/instances/" + id) == 404);
  CHECK(entries_of<log::InstanceDestroy>(*daemon, id).size() == 1);
  CHECK_FALSE(fs::exists(place.state() + "/instances/" + id));
  CHECK(fs::exists(slots_of(place, kept)[0]));
  CHECK(create(*daemon, kKeep) != id);
}

TEST_CASE("durable: damage of both slots is reported with the files' names, and they are kept") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id, whole;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon, kKeep);
    whole = create(*daemon, R"({"durable":true,"name":"whole"})");
    CHECK(daemon->stop(SIGTERM) == 0);
  }
  const auto sound = contents(slots_of(place, id));
  for (const auto& slot : slots_of(place, id)) {
    Bytes content = read_file(slot, 1 << 21).value();
    content[200] ^= 1;
    overwrite(slot, content);
  }
  const auto damaged = contents(slots_of(place, id));
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  REQUIRE(becomes(*daemon, id, "failed"));
  const std::string reason = show(*daemon, id)["reason"];
  INFO(reason);
  for (const auto& slot : slots_of(place, id))
    CHECK(has(reason, slot));
  CHECK(has(problem(*daemon, "POST", "/v1/instances", kKeep), "slot-a"));
  CHECK(contents(slots_of(place, id)) == damaged);
  REQUIRE(becomes(*daemon, whole, "running"));
  // The backup is put back: its next use starts it.
  for (std::size_t i = 0; i < sound.size(); ++i)
    overwrite(slots_of(place, id)[i], sound[i]);
  CHECK(create(*daemon, kKeep) == id);
  CHECK(state(*daemon, id) == "running");
}

TEST_CASE(
    "durable: without the host key they have failed, by its name, vtpmd serves others, and no key is made") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id;
  {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    id = create(*daemon, kKeep);
    CHECK(daemon->stop(SIGTERM) == 0);
  }
  const std::string file = place.state() + "/state.key", aside = place.directory / "aside";
  const bool damaged = GENERATE(true, false);
  fs::rename(file, aside);
  if (damaged) REQUIRE(replace_file(file, as_bytes("x"), 0644));
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  REQUIRE(becomes(*daemon, id, "failed"));
  CHECK(has(show(*daemon, id)["reason"], file));
  create(*daemon);
  CHECK(has(problem(*daemon, "POST", "/v1/instances", R"({"durable":true})"), file));
  CHECK(fs::exists(file) == damaged);
  fs::rename(aside, file);
  CHECK(create(*daemon, kKeep) == id);
  CHECK(state(*daemon, id) == "running");
}

TEST_CASE("durable: without room for the slot files there is no instance, and nothing is left") {
  if (::geteuid() != 0) VTPM_SKIP("needs root, to mount a small file system");
  const Place place;
  const std::string small = place.state() + "/instances";
  REQUIRE(::mkdir(small.c_str(), 0700) == 0);
  const std::string uid = std::to_string(daemon_uid());
  REQUIRE(std::system(("mount -t tmpfs -o size=16k,mode=0700,uid=" + uid + " vtpm-test " + small).c_str()) ==
          0);
  struct Unmount {
    ~Unmount() {
      if (std::system(("umount " + path).c_str()) != 0)
        std::fprintf(stderr, "%s is left mounted\n", path.c_str());
    }
    std::string path;
  };
  const Unmount unmount{small};
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string text = problem(*daemon, "POST", "/v1/instances", kKeep);
  INFO(text);
  CHECK(has(text, "exhausted"));
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].empty());
  CHECK(fs::is_empty(small));
  create(*daemon, R"({"name":"keep"})");
  CHECK(daemon->stop(SIGTERM) == 0);
}

TEST_CASE("durable: what was stored is anchored in the log while it runs") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const std::string file = place.directory / "vtpmd.json";
  REQUIRE(replace_file(file, as_bytes(R"({"state_interval_seconds":1})"), 0644));
  const auto daemon = Daemon::start(place, "embedded", {"--config", file});
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon, kKeep);
  Tenant tenant(place, id);
  tenant.define();
  tenant.store(1);
  REQUIRE(eventually([&] { return !entries_of<log::InstanceState>(*daemon, id).empty(); }));
  const auto anchored = entries_of<log::InstanceState>(*daemon, id);
  CHECK(show(*daemon, id)["storage"]["sequence"] == anchored.back().sequence);
}

TEST_CASE(
    "durable: an engine that is frozen for a while is neither ended nor does it keep others from the log") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const std::string file = place.directory / "vtpmd.json";
  REQUIRE(replace_file(file, as_bytes(R"({"state_interval_seconds":1})"), 0644));
  const auto daemon = Daemon::start(place, "embedded", {"--config", file});
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::string frozen = create(*daemon, R"({"name":"frozen","durable":true})");
  const std::string id = create(*daemon, kKeep);
  Tenant tenant(place, id);
  tenant.define();
  const auto pid = show(*daemon, frozen)["pid"];
  REQUIRE(::kill(pid.get<pid_t>(), SIGSTOP) == 0);
  for (std::size_t rounds = 1; rounds <= 3; ++rounds) {
    tenant.store(static_cast<std::uint8_t>(rounds));
    REQUIRE(eventually([&] { return entries_of<log::InstanceState>(*daemon, id).size() >= rounds; }));
  }
  REQUIRE(::kill(pid.get<pid_t>(), SIGCONT) == 0);
  CHECK(show(*daemon, frozen)["pid"] == pid);
  CHECK(show(*daemon, frozen)["state"] == "running");
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(place.log().find("ended") == std::string::npos);
}
