// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/control/attach.h>
#include <vtpm/os/text.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::control;

namespace {

const std::string kDigest = "sha256:" + std::string(64, 'a');

Result<AttachMessage> parse(std::string_view text, std::size_t fds) {
  return parse_attach_message(as_bytes(text), fds);
}

// A listening attach.sock in a directory of its own.
class Listener {
 public:
  Listener() {
    char name[] = "/tmp/vtpm-attach-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    directory_ = name;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, (directory_ + "/attach.sock").c_str());
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(socket_.get(), 4) == 0);
  }
  ~Listener() { std::filesystem::remove_all(directory_); }
  const std::string& directory() const { return directory_; }
  UniqueFd accept() { return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

 private:
  std::string directory_;
  UniqueFd socket_;
};

}  // namespace

TEST_CASE("attach messages: a launch comes back as it was sent") {
  const LaunchRequest sent{"web-1", kDigest, "web", true, {NodeKind::Managed, NodeKind::Raw}};
  const auto got = parse(serialize(AttachMessage(sent)), 4);
  REQUIRE(got);
  const auto& launch = std::get<LaunchRequest>(*got);
  CHECK(launch.container == sent.container);
  CHECK(launch.image == sent.image);
  CHECK(launch.name == sent.name);
  CHECK(launch.durable);
  CHECK(launch.nodes == sent.nodes);
}

TEST_CASE("attach messages: what a launch does not say stays unsaid") {
  const auto got = parse(serialize(AttachMessage(LaunchRequest{"c", {}, {}, false, {NodeKind::Raw}})), 3);
  REQUIRE(got);
  const auto& launch = std::get<LaunchRequest>(*got);
  CHECK_FALSE(launch.image);
  CHECK_FALSE(launch.name);
  CHECK_FALSE(launch.durable);
}

TEST_CASE("attach messages: attach, detach and release come back as they were sent") {
  const auto attach = parse(serialize(AttachMessage(AttachRequest{"id", NodeKind::Raw, "/tmp/x"})), 1);
  REQUIRE(attach);
  CHECK(std::get<AttachRequest>(*attach).node == NodeKind::Raw);
  CHECK(std::get<AttachRequest>(*attach).path == "/tmp/x");
  CHECK(std::get<AttachRequest>(*attach).backend == Backend::Fuse);
  const AttachRequest socket{"id", NodeKind::Managed, "/tmp/s", Backend::Socket};
  const auto got = parse(serialize(AttachMessage(socket)), 1);
  REQUIRE(got);
  CHECK(std::get<AttachRequest>(*got).backend == Backend::Socket);
  const auto detach = parse(serialize(AttachMessage(DetachRequest{"id", "/tmp/x"})), 0);
  REQUIRE(detach);
  CHECK(std::get<DetachRequest>(*detach).instance == "id");
  const auto release = parse(serialize(AttachMessage(ReleaseRequest{"c"})), 0);
  REQUIRE(release);
  CHECK(std::get<ReleaseRequest>(*release).container == "c");
}

TEST_CASE("attach messages: of a device file the backend is not said, as by a vtpmctl that knew no other") {
  const std::string_view text = R"({"instance":"i","node":"raw","path":"/x","type":"attach"})";
  const auto got = parse(std::string(text), 1);
  REQUIRE(got);
  CHECK(std::get<AttachRequest>(*got).backend == Backend::Fuse);
  CHECK(serialize(*got) == text);  // a vtpmd that knows no other understands it
  const auto said = parse(R"({"type":"attach","instance":"i","node":"raw","path":"/x","backend":"fuse"})", 1);
  REQUIRE(said);
  CHECK(std::get<AttachRequest>(*said).backend == Backend::Fuse);
}

TEST_CASE("attach messages: a missing or an extra descriptor is refused") {
  const auto launch = serialize(AttachMessage(LaunchRequest{"c", {}, {}, false, {NodeKind::Managed}}));
  const auto attach = serialize(AttachMessage(AttachRequest{"id", NodeKind::Raw, "/x"}));
  const auto release = serialize(AttachMessage(ReleaseRequest{"c"}));
  for (const std::size_t fds : {std::size_t{0}, std::size_t{2}, std::size_t{4}, std::size_t{8}})
    CHECK_FALSE(parse(launch, fds));
  CHECK(parse(launch, 3));
  CHECK_FALSE(parse(attach, 0));
  CHECK_FALSE(parse(attach, 2));
  CHECK_FALSE(parse(release, 1));
}

TEST_CASE(
    "attach messages: a launch says whether a cgroup comes with it, and one more descriptor then does") {
  LaunchRequest request{"c", {}, {}, false, {NodeKind::Managed}};
  CHECK_THAT(serialize(AttachMessage(request)), !Catch::Contains("cgroup"));  // as before it was known
  CHECK_FALSE(std::get<LaunchRequest>(*parse(serialize(AttachMessage(request)), 3)).cgroup);
  request.cgroup = true;
  const std::string text = serialize(AttachMessage(request));
  for (const std::size_t fds : {std::size_t{0}, std::size_t{3}, std::size_t{5}})
    CHECK(parse(text, fds).error().kind() == ErrorCode::Malformed);
  const auto got = parse(text, 4);
  REQUIRE(got);
  CHECK(std::get<LaunchRequest>(*got).cgroup);
}

TEST_CASE("attach messages: malformed documents are refused by name") {
  struct Row {
    const char* text;
    const char* names;  // in the error
    std::size_t fds;
  };
  const auto row = GENERATE(values<Row>({
      {"", "", 0},
      {"null", "", 0},
      {"[]", "", 0},
      {"{}", "type", 0},
      {R"({"type":1})", "type", 0},
      {R"({"type":"explode"})", "type", 0},
      {R"({"type":"release"})", "container", 0},
      {R"({"type":"release","container":""})", "container", 0},
      {R"({"type":"release","container":7})", "container", 0},
      {R"({"type":"release","container":"a\nb"})", "container", 0},
      {R"({"type":"release","container":"a\u0000"})", "container", 0},
      {R"({"type":"release","container":"a","more":1})", "more", 0},
      {R"({"type":"release","container":"a","container":"b"})", "container", 0},
      {R"({"type":"launch","container":"c","durable":false,"nodes":[]})", "nodes", 2},
      {R"({"type":"launch","container":"c","durable":false,"nodes":["raw","raw"]})", "nodes", 4},
      {R"({"type":"launch","container":"c","durable":false,"nodes":["managed","raw","raw"]})", "nodes", 5},
      {R"({"type":"launch","container":"c","durable":false,"nodes":["cooked"]})", "cooked", 3},
      {R"({"type":"launch","container":"c","durable":"no","nodes":["raw"]})", "durable", 3},
      {R"({"type":"launch","container":"c","nodes":["raw"]})", "durable", 3},
      {R"({"type":"launch","container":"c\u001b","durable":false,"nodes":["raw"]})", "container", 3},
      {R"({"type":"launch","container":"c","durable":false,"image":"sha256:12","nodes":["raw"]})", "image",
       3},
      {R"({"type":"launch","container":"c","durable":false,"image":"latest","nodes":["raw"]})", "image", 3},
      {R"({"type":"launch","container":"c","durable":false,"name":null,"nodes":["raw"]})", "name", 3},
      {R"({"type":"attach","instance":"i","node":"raw"})", "path", 1},
      {R"({"type":"attach","instance":"i","node":"RAW","path":"/x"})", "RAW", 1},
      {R"({"type":"attach","instance":"i","node":"raw","path":"/x","backend":null})", "backend", 1},
      {R"({"type":"attach","instance":"i","node":"raw","path":"/x","backend":"auto"})", "auto", 1},
      {R"({"type":"attach","instance":"i","node":"raw","path":"/x","backend":true})", "backend", 1},
  }));
  INFO(row.text);
  const auto got = parse(row.text, row.fds);
  REQUIRE_FALSE(got);
  CHECK(got.error().kind() == ErrorCode::Malformed);
  CHECK_THAT(got.error().context, Catch::Contains(row.names));
}

TEST_CASE("attach messages: texts have limits") {
  const auto release = [](std::size_t size) {
    return parse(R"({"type":"release","container":")" + std::string(size, 'c') + R"("})", 0);
  };
  CHECK(release(kMaxId));
  CHECK_FALSE(release(kMaxId + 1));
  CHECK_FALSE(release(kMaxAttachMessage));
}

TEST_CASE("attach replies: an id or an error comes back as it was sent") {
  const auto id = parse_attach_reply(as_bytes(serialize(AttachReply{std::string("0123")})));
  REQUIRE(id);
  CHECK(*id == "0123");
  for (int code = static_cast<int>(ErrorCode::Busy); code <= static_cast<int>(ErrorCode::Internal); ++code) {
    const Error sent(static_cast<ErrorCode>(code), "because \"so\"\n");
    const auto got = parse_attach_reply(as_bytes(serialize(AttachReply{sent})));
    REQUIRE_FALSE(got);
    CHECK(got.error().kind() == sent.kind());
    CHECK(got.error().context == sent.context);
  }
}

TEST_CASE("attach replies: malformed ones are refused") {
  const auto text = GENERATE(values<std::string>({
      "",
      "{}",
      "[]",
      R"({"instance":1})",
      R"({"instance":"a","more":1})",
      R"({"instance":"a","error":{"code":"io","detail":""}})",
      R"({"error":{"code":"io"}})",
      R"({"error":{"code":"fine","detail":""}})",
      R"({"error":"io"})",
  }));
  INFO(text);
  const auto got = parse_attach_reply(as_bytes(text));
  REQUIRE_FALSE(got);
  CHECK(got.error().kind() == ErrorCode::Malformed);
}

TEST_CASE("attach request: descriptors arrive, and the reply comes back") {
  Listener listener;
  const UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::size_t fds = 0;
  std::thread server([&] {
    const auto peer = listener.accept();
    const auto message = receive_message(peer.get(), kMaxAttachMessage, after(std::chrono::seconds(10)));
    if (message) fds = message->fds.size();
    static_cast<void>(send_message(peer.get(), as_bytes(serialize(AttachReply{std::string("made")}))));
  });
  const int borrowed = fd.get();
  const auto id = request(listener.directory(), AttachRequest{"i", NodeKind::Raw, "/x"},
                          std::span(&borrowed, 1), after(std::chrono::seconds(10)));
  server.join();
  REQUIRE(id);
  CHECK(*id == "made");
  CHECK(fds == 1);
}

TEST_CASE("attach request: nobody there is Unreachable, silence is Timeout") {
  const auto nobody = request("/nonexistent", ReleaseRequest{"c"}, {}, after(std::chrono::seconds(10)));
  REQUIRE_FALSE(nobody);
  CHECK(nobody.error().kind() == ErrorCode::Unreachable);
  Listener silent;
  const auto late =
      request(silent.directory(), ReleaseRequest{"c"}, {}, after(std::chrono::milliseconds(50)));
  REQUIRE_FALSE(late);
  CHECK(late.error().kind() == ErrorCode::Timeout);
}
