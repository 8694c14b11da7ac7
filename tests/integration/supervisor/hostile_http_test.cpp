// SPDX-License-Identifier: Apache-2.0
// Malformed requests: each is answered clearly, and the daemon serves on.
#include "tests/integration/supervisor/json_call.h"

#include <vtpm/os/file.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

using namespace vtpm;
using namespace vtpm::test;

namespace {

UniqueFd connect_stream(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

// Sends raw bytes, ends its own direction, and reads what comes until the daemon closes.
std::string converse(const Place& place, std::string_view bytes) {
  const UniqueFd fd = connect_stream(place.runtime() + "/vtpmd.sock");
  // The daemon may answer and close before all is sent.
  [[maybe_unused]] const auto sent = ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  ::shutdown(fd.get(), SHUT_WR);
  std::string answer;
  char buffer[4096];
  for (;;) {
    pollfd p{fd.get(), POLLIN, 0};
    if (::poll(&p, 1, 20'000) <= 0) return "no answer";
    const ssize_t n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return answer;
    answer.append(buffer, static_cast<std::size_t>(n));
  }
}

std::string post(std::string_view target, std::string_view body) {
  return "POST " + std::string(target) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

}  // namespace

TEST_CASE("hostile HTTP: what is not a request gets 400 or an end, and nobody else notices") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::size_t before = daemon->descriptors();
  const std::vector<std::string> inputs{
      "",
      "\r\n\r\n\r\n\r\n",
      "GARBAGE\r\n\r\n",
      "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      std::string("GET /\0 HTTP/1.1\r\n\r\n", 20),
      std::string(100'000, 'A'),
      "GET /healthz HTTP/1.1\r\n" + std::string(20'000, 'h') + ": 1\r\n\r\n",
      "POST /v1/instances HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST /v1/instances HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
      "POST /v1/instances HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n{",
      "POST /v1/instances HTTP/1.1\r\nContent-Length: 10\r\n\r\n{",
      "POST /v1/instances HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
      "POST /v1/instances HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"};
  for (const auto& input : inputs) {
    const std::string answer = converse(place, input);
    INFO(input.substr(0, 80) << " -> " << answer.substr(0, 200));
    CHECK((answer.empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4")));
    CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
  }
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].empty());
  CHECK(eventually([&] { return daemon->descriptors() <= before; }));
}

TEST_CASE("hostile HTTP: too large a header or body is named") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string header = "GET /healthz HTTP/1.1\r\nX: " + std::string(9'000, 'h') + "\r\n\r\n";
  CHECK(converse(place, header).starts_with("HTTP/1.1 431"));
  const std::string body = "POST /v1/instances HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n";
  CHECK(converse(place, body).starts_with("HTTP/1.1 413"));
}

TEST_CASE("hostile HTTP: wrong paths, methods and queries") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  CHECK(status_of(*daemon, "GET", "/") == 404);
  CHECK(status_of(*daemon, "GET", "/v1/instances/../../etc/passwd") == 404);
  CHECK(status_of(*daemon, "GET", "/v1/instances/%2e%2e") == 404);
  CHECK(status_of(*daemon, "GET", "/v1/log/proof") == 400);
  CHECK(status_of(*daemon, "GET", "/v1/log/proof?index=7") == 400);
  CHECK(status_of(*daemon, "GET", "/v1/log/proof?from=1&to=9") == 400);
  CHECK(status_of(*daemon, "GET", "/v1/log/proof?index=0&size=0") == 400);
  CHECK(status_of(*daemon, "GET", "/v1/log/entries?start=x") == 400);
  CHECK(call(*daemon, "GET", "/v1/log/entries?start=9223372036854775807")["entries"].empty());
  const std::string answer =
      converse(place, "PUT /v1/instances HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(answer.starts_with("HTTP/1.1 405"));
  CHECK(answer.find("Allow: POST, GET\r\n") != std::string::npos);
  CHECK(answer.find("application/problem+json") != std::string::npos);
}

TEST_CASE("hostile HTTP: malformed JSON is a 400 that names the member") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon);
  const std::vector<std::pair<std::string, std::string>> bodies{
      {"/v1/instances", "{"},
      {"/v1/instances", "[]"},
      {"/v1/instances", "null"},
      {"/v1/instances", R"({"nmae":"x"})"},
      {"/v1/instances", R"({"name":7})"},
      {"/v1/instances", R"({"name":"a","name":"b"})"},
      {"/v1/instances", R"({"name":"-x"})"},
      {"/v1/instances", R"({"image":"sha256:xyz"})"},
      {"/v1/instances", R"({"container":""})"},
      {"/v1/instances", R"({"durable":"no"})"},
      {"/v1/instances", std::string(5'000, '[')},
      {"/v1/instances", "{\"name\":\"\xff\xfe\"}"},
      {"/v1/instances/" + id + "/evidence", ""},
      {"/v1/instances/" + id + "/evidence", "{}"},
      {"/v1/instances/" + id + "/evidence", R"({"nonce":"0011"})"},
      {"/v1/instances/" + id + "/evidence", R"({"nonce":"001122334455667"})"},
      {"/v1/instances/" + id + "/evidence", R"({"nonce":")" + std::string(130, '0') + "\"}"},
      {"/v1/instances/" + id + "/evidence", R"({"nonce":"0011223344556677","fresh":1})"},
      {"/v1/instances/" + id + "/measurements",
       R"({"pcr":17,"digest":")" + std::string(64, 'a') + R"(","description":"x"})"},
      {"/v1/instances/" + id + "/measurements", R"({"pcr":18,"digest":"aa","description":"x"})"},
      {"/v1/instances/" + id + "/measurements", R"({"pcr":18,"digest":")" + std::string(64, 'a') + "\"}"}};
  for (const auto& [target, body] : bodies) {
    INFO(target << " " << body.substr(0, 80));
    CHECK(status_of(*daemon, "POST", target, body.empty() ? " " : body) == 400);
  }
  CHECK(converse(place, post("/v1/instances", R"({"nmae":"x"})")).find("nmae") != std::string::npos);
  CHECK(status_of(*daemon, "POST", "/v1/instances", R"({"ek":"rsa-2048"})") == 501);
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].size() == 1);
}

TEST_CASE("hostile HTTP: a peer who connects and says nothing is let go, and does not hold up others") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const UniqueFd silent = connect_stream(place.runtime() + "/vtpmd.sock");
  const UniqueFd halfway = connect_stream(place.runtime() + "/vtpmd.sock");
  REQUIRE(write_all(halfway.get(), as_bytes("GET /healthz HT")));
  CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
  for (const int fd : {silent.get(), halfway.get()}) {
    pollfd p{fd, POLLIN, 0};
    char byte = 0;
    REQUIRE(::poll(&p, 1, 30'000) == 1);
    CHECK(::recv(fd, &byte, 1, 0) <= 0);
  }
}
