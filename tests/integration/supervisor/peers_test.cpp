// SPDX-License-Identifier: Apache-2.0
// Who may do what over HTTP: an operator opens the socket to everyone, and users meet each other.
#include "tests/integration/supervisor/json_call.h"
#include "tests/support/skip.h"

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
