// SPDX-License-Identifier: Apache-2.0
// attach.sock with real descriptors: launches, nodes, and the ways to get them wrong.
#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/skip.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/os/process.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>

using namespace vtpm;
using namespace vtpm::test;
using control::NodeKind;

namespace {

std::size_t count_instances(const Daemon& daemon) {
  return call(daemon, "GET", "/v1/instances")["instances"].size();
}

}  // namespace

TEST_CASE("attach.sock: a launch makes an instance that ends with the container's process") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const std::size_t before = daemon->descriptors();
  Container container;
  auto node = device::make_fuse_node();
  REQUIRE(node);
  const UniqueFd config = config_file("{\"ociVersion\":\"1.0.2\"}");
  auto request = launch_of("c1");
  request.name = "web";
  const auto id = send(place, request, {container.pidfd(), config.get(), node->server.get()});
  INFO((id ? "" : id.error().context));
  REQUIRE(id);
  const auto shown = call(*daemon, "GET", "/v1/instances/web");
  CHECK(shown["id"] == *id);
  CHECK(shown["container"] == "c1");
  CHECK(shown["config"] == "sha256:" + to_hex(tpm::sha256(as_bytes("{\"ociVersion\":\"1.0.2\"}"))));
  CHECK(shown["nodes"].size() == 1);
  const auto again = send(place, request, {container.pidfd(), config.get(), node->server.get()});
  CHECK(again.error().kind() == ErrorCode::Conflict);
  node->server.reset();
  container.end();
  CHECK(eventually([&] { return count_instances(*daemon) == 0; }));
  CHECK(eventually([&] { return daemon->descriptors() <= before; }));
}

TEST_CASE("attach.sock: a container that starts again under its old name finds it free") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const UniqueFd config = config_file();
  for (int i = 0; i < 3; ++i) {
    Container container;
    auto node = device::make_fuse_node();
    REQUIRE(node);
    auto request = launch_of("c1");
    request.name = "web";
    const auto id = send(place, request, {container.pidfd(), config.get(), node->server.get()});
    INFO((id ? "" : id.error().context));
    CHECK(id);
  }
}

TEST_CASE("attach.sock: an instance whose engine has died still ends with its container") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const bool wait = GENERATE(true, false);  // until it is gone, or restart the container at once
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const UniqueFd config = config_file();
  auto request = launch_of("c1");
  request.name = "web";
  for (int i = 0; i < 3; ++i) {
    Container container;
    auto node = device::make_fuse_node();
    REQUIRE(node);
    const auto id = send(place, request, {container.pidfd(), config.get(), node->server.get()});
    INFO((id ? "" : id.error().context));
    REQUIRE(id);
    const auto show = [&] { return call(*daemon, "GET", "/v1/instances/web"); };
    REQUIRE(::kill(show()["pid"].get<pid_t>(), SIGKILL) == 0);
    if (wait || i == 1) REQUIRE(eventually([&] { return show()["state"] == "failed"; }));
    container.end();
    if (wait) CHECK(eventually([&] { return count_instances(*daemon) == 0; }));
  }
}

TEST_CASE("attach.sock: the container of a dead engine does not keep vtpmd from stopping") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const UniqueFd config = config_file();
  const Container container;
  auto node = device::make_fuse_node();
  REQUIRE(node);
  REQUIRE(send(place, launch_of("c1"), {container.pidfd(), config.get(), node->server.get()}));
  const auto shown = [&] { return call(*daemon, "GET", "/v1/instances")["instances"][0]; };
  REQUIRE(::kill(shown()["pid"].get<pid_t>(), SIGKILL) == 0);
  REQUIRE(eventually([&] { return shown()["state"] == "failed"; }));
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(place.log().find("vtpmd: stopped") != std::string::npos);  // by itself, not by the alarm
}

TEST_CASE("attach.sock: poststop's message ends the instance, and an unknown container is no error") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const Container container;
  auto node = device::make_fuse_node();
  REQUIRE(node);
  const UniqueFd config = config_file();
  REQUIRE(send(place, launch_of("c1"), {container.pidfd(), config.get(), node->server.get()}));
  CHECK(send(place, control::ReleaseRequest{"c2"}, {}));
  CHECK(count_instances(*daemon) == 1);
  CHECK(send(place, control::ReleaseRequest{"c1"}, {}));
  CHECK(count_instances(*daemon) == 0);
}

TEST_CASE("attach.sock: a node that was attached answers TPM commands, and is forgotten when detached") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon), path = place.directory / "vtpm";
  auto node = device::make_fuse_node();
  REQUIRE(node);
  REQUIRE(send(place, control::AttachRequest{id, NodeKind::Raw, path}, {node->server.get()}));
  node->server.reset();
  REQUIRE(device::place(node->mount, path));
  {
    const UniqueFd tpm = open_device(path.c_str());
    REQUIRE(tpm);
    const Bytes get_random = *from_hex("80010000000c0000017b0010");
    REQUIRE(write_all(tpm.get(), get_random));
    std::array<std::uint8_t, 64> response{};
    CHECK(::read(tpm.get(), response.data(), response.size()) == 28);
    CHECK(get_be<std::uint32_t>(response, 6) == 0);
  }
  const auto nodes = call(*daemon, "GET", "/v1/instances/" + id)["nodes"];
  REQUIRE(nodes.size() == 1);
  CHECK(nodes[0]["kind"] == "raw");
  CHECK(nodes[0]["path"] == path);
  CHECK(device::remove_node(path));
  CHECK(send(place, control::DetachRequest{id, path}, {}));
  CHECK(call(*daemon, "GET", "/v1/instances/" + id)["nodes"].empty());
  CHECK(send(place, control::DetachRequest{id, path}, {}).error().kind() == ErrorCode::NotFound);
}

TEST_CASE("attach.sock: wrong descriptors are refused, and none is kept") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::size_t before = daemon->descriptors();
  const Container container;
  const UniqueFd config = config_file(), null = open_device("/dev/null"), fuse = open_device("/dev/fuse");
  const UniqueFd large = config_file(std::string(4 * 1024 * 1024 + 1, ' '));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  const int pid = container.pidfd(), json = config.get(), tpm = fuse.get();
  const std::vector<std::vector<int>> sets{{},
                                           {pid},
                                           {pid, json},
                                           {json, pid, tpm},
                                           {pid, reader.get(), tpm},
                                           {pid, json, null.get()},
                                           {pid, json, json},
                                           {null.get(), json, tpm},
                                           {pid, large.get(), tpm},
                                           {pid, json, tpm, tpm},
                                           {reader.get(), json, tpm},
                                           {pid, json, tpm, tpm, tpm, tpm, tpm, tpm}};
  for (std::size_t i = 0; i < sets.size(); ++i) {
    INFO("set " << i);
    const auto refused = send(place, launch_of("c1"), sets[i]);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind() == ErrorCode::Malformed);
  }
  CHECK(count_instances(*daemon) == 0);
  CHECK(eventually([&] { return daemon->descriptors() <= before; }));
}

TEST_CASE("attach.sock: what is not a message is answered as malformed, and the daemon serves on") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::vector<std::string> inputs{"x",
                                        "{}",
                                        "[]",
                                        R"({"type":"launch"})",
                                        R"({"type":7})",
                                        std::string(60'000, '['),
                                        std::string("\0\0", 2)};
  for (const auto& input : inputs) {
    const auto socket = connect_seqpacket(place.runtime() + "/attach.sock");
    REQUIRE(socket);
    REQUIRE(send_message(socket->get(), as_bytes(input)));
    const auto answer =
        receive_message(socket->get(), control::kMaxAttachMessage, after(std::chrono::seconds(20)));
    REQUIRE(answer);
    const auto reply = control::parse_attach_reply(answer->bytes);
    REQUIRE_FALSE(reply);
    CHECK(as_text(answer->bytes).find("malformed") != std::string_view::npos);
    CHECK(reply.error().kind() == ErrorCode::Malformed);
  }
  CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
}

TEST_CASE("attach.sock: a container that has ended already gets no instance") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  Container container;
  const UniqueFd config = config_file(), fuse = open_device("/dev/fuse");
  container.end();
  CHECK_FALSE(send(place, launch_of("c1"), {container.pidfd(), config.get(), fuse.get()}));
  CHECK(eventually([&] { return count_instances(*daemon) == 0; }));
}

TEST_CASE("attach.sock: another user's process, instance and container are out of a user's reach") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  constexpr uid_t kUser = 54321;
  const Container container;  // root's
  const UniqueFd config = config_file(), fuse = open_device("/dev/fuse");
  const std::string id = create(*daemon, R"({"container":"c1"})");
  const std::vector<int> fds{container.pidfd(), config.get(), fuse.get()};
  CHECK(as_user(kUser, [&] {
          const auto refused = send(place, launch_of("c9"), fds);
          return !refused && refused.error().kind() == ErrorCode::PermissionDenied ? 0 : 1;
        }) == 0);
  CHECK(as_user(kUser, [&] {
          const auto refused = send(place, control::AttachRequest{id, NodeKind::Raw, "/x"}, {fuse.get()});
          return !refused && refused.error().kind() == ErrorCode::NotFound ? 0 : 1;
        }) == 0);
  CHECK(as_user(kUser, [&] { return send(place, control::ReleaseRequest{"c1"}, {}) ? 0 : 1; }) == 0);
  CHECK(count_instances(*daemon) == 1);
  // Its own process is accepted.
  CHECK(as_user(kUser, [&] {
          const auto own = open_pidfd(::getpid());
          const std::vector<int> mine{own->get(), config.get(), fuse.get()};
          return send(place, launch_of("c9"), mine) ? 0 : 1;
        }) == 0);
  CHECK(eventually([&] { return count_instances(*daemon) == 1; }));
}
