// SPDX-License-Identifier: Apache-2.0
// Who may do what over HTTP: an operator opens the socket to everyone, and users meet each other.
#include "tests/integration/supervisor/json_call.h"
#include "tests/support/skip.h"
#include "tests/support/slow_to_close.h"

#include <vtpm/control/attach.h>
#include <vtpm/os/unix_socket.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr uid_t kAlice = 54321;
constexpr uid_t kBob = 54322;

std::unique_ptr<Daemon> open_to_all(const Place& place, const std::vector<std::string>& more = {}) {
  auto daemon = Daemon::start(place, "embedded", more);
  REQUIRE(daemon->ready());
  REQUIRE(::chmod((place.runtime() + "/vtpmd.sock").c_str(), 0666) == 0);
  return daemon;
}

// The status of a user's call; 0: no answer.
int status_as(uid_t uid, const Daemon& daemon, const std::string& method, const std::string& target,
              const std::string& body = {}) {
  // An exit status has 8 bits: the hundreds and the rest do not fit, so the status is looked up by its own
  // child.
  for (const unsigned expected : {200u, 201u, 400u, 403u, 404u, 405u, 409u, 507u}) {
    const bool same = as_user(uid, [&] {
                        const auto answer = daemon.client().send(method, target, body);
                        return answer && answer->status == expected ? 0 : 1;
                      }) == 0;
    if (same) return static_cast<int>(expected);
  }
  return 0;
}

// Sends what is too long for a message, with eight copies of `fd`; the reply's error.
ErrorCode send_refused(const std::string& path, int fd) {
  const auto socket = connect_seqpacket(path);
  if (!socket) return socket.error().kind();
  const std::vector<int> fds(kMaxMessageFds, fd);
  const auto deadline = after(std::chrono::seconds(10));
  const auto sent = send_message(socket->get(), Bytes(control::kMaxAttachMessage + 1), fds, deadline);
  if (!sent) return sent.error().kind();
  const auto answer = receive_message(socket->get(), control::kMaxAttachMessage, deadline);
  if (!answer) return answer.error().kind();
  return control::parse_attach_reply(answer->bytes).error().kind();
}

}  // namespace

TEST_CASE("peers: a user sees and reaches own instances alone; an operator all") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  const Place place;
  const auto daemon = open_to_all(place);
  const auto make = [&] {
    return daemon->client().call("POST", "/v1/instances", R"({"name":"mine"})") ? 0 : 1;
  };
  REQUIRE(as_user(kAlice, make) == 0);
  REQUIRE(as_user(kBob, make) == 0);
  const auto all = call(*daemon, "GET", "/v1/instances")["instances"];
  REQUIRE(all.size() == 2);
  const bool first_is_alices = all[0]["owner_uid"] == kAlice;
  const std::string alices = all[first_is_alices ? 0 : 1]["id"];
  const std::string path = "/v1/instances/" + alices;
  CHECK(status_as(kAlice, *daemon, "GET", path) == 200);
  CHECK(status_as(kBob, *daemon, "GET", path) == 404);
  CHECK(status_as(kBob, *daemon, "DELETE", path) == 404);
  CHECK(status_as(kBob, *daemon, "GET", path + "/eventlog") == 404);
  CHECK(status_as(kBob, *daemon, "POST", path + "/evidence", R"({"nonce":"0011223344556677"})") == 404);
  CHECK(status_as(kBob, *daemon, "GET", "/v1/log/entries") == 403);
  CHECK(status_as(kBob, *daemon, "GET", "/v1/log/head") == 200);
  CHECK(as_user(kBob, [&] {
          const auto list = daemon->client().call("GET", "/v1/instances");
          return list && list->find(alices) == std::string::npos && list->find("mine") != std::string::npos
                     ? 0
                     : 1;
        }) == 0);
  CHECK(status_of(*daemon, "GET", path) == 200);
}

TEST_CASE("peers: a user's instances are limited in number, an operator's are not") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  const Place place;
  const std::string config = place.directory / "config.json";
  FILE* file = std::fopen(config.c_str(), "w");
  REQUIRE(file != nullptr);
  std::fputs(R"({"max_instances_per_user":2})", file);
  std::fclose(file);
  const auto daemon = open_to_all(place, {"--config", config});
  CHECK(as_user(kAlice, [&] {
          for (int i = 0; i < 2; ++i)
            if (!daemon->client().call("POST", "/v1/instances", "{}")) return 1;
          const auto third = daemon->client().send("POST", "/v1/instances", "{}");
          return third && third->status == 507 ? 0 : 2;
        }) == 0);
  for (int i = 0; i < 3; ++i)
    create(*daemon);
}

TEST_CASE("peers: statements in PCR 18 are an operator's, not the instance's owner's") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  const Place place;
  const auto daemon = open_to_all(place);
  REQUIRE(as_user(kAlice, [&] {
            return daemon->client().call("POST", "/v1/instances", R"({"name":"mine"})") ? 0 : 1;
          }) == 0);
  const std::string path = "/v1/instances/mine";
  const std::string body =
      R"({"pcr":18,"digest":")" + std::string(64, 'b') + R"(","description":"approved"})";
  CHECK(status_as(kAlice, *daemon, "GET", path) == 200);
  CHECK(status_as(kAlice, *daemon, "POST", path + "/measurements", body) == 403);
  CHECK(status_as(kBob, *daemon, "POST", path + "/measurements", body) == 403);
  CHECK(call(*daemon, "GET", path + "/eventlog").size() == 1);
  CHECK(call(*daemon, "POST", path + "/measurements", body).size() == 2);
}

TEST_CASE("peers: descriptors that are slow to close stop neither the daemon nor other users") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  const Place place;
  const auto daemon = open_to_all(place);
  const std::string path = place.runtime() + "/attach.sock";
  SilentServer server;
  // While the daemon stands still, its copy becomes the last one.
  REQUIRE(::kill(daemon->pid(), SIGSTOP) == 0);
  CHECK(as_user(kAlice, [&] {
          const UniqueFd slow = server.slow_to_close();
          const auto socket = connect_seqpacket(path);
          if (!slow || !socket) return 1;
          const int fd = slow.get();
          return send_message(socket->get(), Bytes(control::kMaxAttachMessage + 1), {&fd, 1}) ? 0 : 2;
        }) == 0);
  REQUIRE(::kill(daemon->pid(), SIGCONT) == 0);
  CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto refused_as = [&](uid_t uid) {
    return static_cast<ErrorCode>(
        as_user(uid, [&] { return static_cast<int>(send_refused(path, null.get())); }));
  };
  // Hers wait for each other, up to a limit.
  ErrorCode last = ErrorCode::Malformed;
  for (int i = 0; i < 10 && last == ErrorCode::Malformed; ++i)
    last = refused_as(kAlice);
  CHECK(last == ErrorCode::Busy);
  CHECK(refused_as(kBob) == ErrorCode::Malformed);
  CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
}
