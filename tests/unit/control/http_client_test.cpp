// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/control/http_client.h>
#include <vtpm/os/bytes.h>
#include <vtpm/os/file.h>
#include <vtpm/os/unique_fd.h>

#include <catch2/catch.hpp>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

using namespace vtpm;
using namespace vtpm::control;

namespace {

// A server that gives one fixed answer to one request, and keeps the request.
class OneAnswer {
 public:
  explicit OneAnswer(std::string answer, bool close_after = true) : answer_(std::move(answer)) {
    char name[] = "/tmp/vtpm-http-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    directory = name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, (directory + "/vtpmd.sock").c_str());
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(socket_.get(), 1) == 0);
    thread_ = std::thread([this, close_after] { serve(close_after); });
  }
  ~OneAnswer() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove_all(directory);
  }

  std::string directory;
  std::string request;

 private:
  void serve(bool close_after) {
    peer_ = UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!peer_) return;
    char buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::read(peer_.get(), buffer, sizeof buffer);
      if (n <= 0) return;
      request.append(buffer, static_cast<std::size_t>(n));
    }
    static_cast<void>(write_all(peer_.get(), as_bytes(answer_)));
    if (close_after) peer_.reset();
  }

  std::string answer_;
  UniqueFd socket_;
  UniqueFd peer_;
  std::thread thread_;
};

std::string answer(const std::string& status, const std::string& body) {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

}  // namespace

TEST_CASE("http client: method, target and body are sent, status and body come back") {
  OneAnswer server(answer("201 Created", R"({"id":"1"})"));
  const auto got = HttpClient(server.directory).send("POST", "/v1/instances?a=b", R"({"name":"x"})");
  REQUIRE(got);
  CHECK(got->status == 201);
  CHECK(got->body == R"({"id":"1"})");
  CHECK(server.request.rfind("POST /v1/instances?a=b HTTP/1.1\r\n", 0) == 0);
  CHECK_THAT(server.request, Catch::Contains("Content-Type: application/json"));
}

TEST_CASE("http client: a problem document becomes its error") {
  struct Row {
    const char* status;
    const char* body;
    ErrorCode code;
    const char* context;
  };
  const auto row = GENERATE(values<Row>({
      {"404 Not Found", R"({"type":"urn:vtpm:error:not-found","detail":"no instance x"})",
       ErrorCode::NotFound, "no instance x"},
      {"409 Conflict", R"({"type":"urn:vtpm:error:busy","title":"Busy"})", ErrorCode::Busy, "Busy"},
      {"403 Forbidden", "nope", ErrorCode::PermissionDenied, "403"},
      {"500 Internal Server Error", "{}", ErrorCode::Internal, ""},
      {"400 Bad Request", R"({"type":"urn:vtpm:error:nonsense","detail":"d"})", ErrorCode::Malformed, "d"},
      // vtpmd was reached: what it could not reach is its own affair.
      {"502 Bad Gateway", R"({"type":"urn:vtpm:error:unreachable","detail":"the TPM"})",
       ErrorCode::Unavailable, "the TPM"},
  }));
  OneAnswer server(answer(row.status, row.body));
  const auto got = HttpClient(server.directory).call("GET", "/v1/x");
  REQUIRE_FALSE(got);
  CHECK(got.error().kind() == row.code);
  CHECK_THAT(got.error().context, Catch::Contains(row.context));
}

TEST_CASE("http client: nobody there is Unreachable, silence is Timeout, noise is Malformed") {
  const auto nobody = HttpClient("/nonexistent").send("GET", "/");
  REQUIRE_FALSE(nobody);
  CHECK(nobody.error().kind() == ErrorCode::Unreachable);
  OneAnswer silent("", false);
  const auto late = HttpClient(silent.directory, std::chrono::seconds(1)).send("GET", "/");
  REQUIRE_FALSE(late);
  CHECK(late.error().kind() == ErrorCode::Timeout);
  OneAnswer noise("hello, this is not HTTP at all\r\n\r\n");
  const auto bad = HttpClient(noise.directory).send("GET", "/");
  REQUIRE_FALSE(bad);
  CHECK(bad.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("http client: a target that would break the request line is refused") {
  const auto got = HttpClient("/nonexistent").send("GET", "/v1/x HTTP/1.1\r\nEvil: 1");
  REQUIRE_FALSE(got);
  CHECK(got.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("http client: events are given one by one, and the reader may stop") {
  const std::string stream =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
      ": hello\n\nevent: x\ndata: {\"a\":1}\n\ndata:one\r\ndata: two\r\n\r\ndata: last\n\n";
  std::vector<std::string> all;
  {
    OneAnswer server(stream);
    const auto done = HttpClient(server.directory).stream("/v1/events", [&](std::string_view event) {
      all.emplace_back(event);
      return true;
    });
    CHECK(done);
  }
  CHECK(all == std::vector<std::string>{"{\"a\":1}", "one\ntwo", "last"});
  OneAnswer server(stream, false);
  int count = 0;
  CHECK(HttpClient(server.directory).stream("/v1/events", [&](std::string_view) { return ++count < 2; }));
  CHECK(count == 2);
}
