// SPDX-License-Identifier: Apache-2.0
// Users who send what takes long to close. While vtpmd stands still its copy becomes the last one, so that it
// is vtpmd who closes it; another client is answered all the same.
#include "tests/integration/supervisor/json_call.h"
#include "tests/support/skip.h"
#include "tests/support/slow_to_close.h"
#include "tests/support/stuck_file.h"

#include <vtpm/control/attach.h>
#include <vtpm/os/unix_socket.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <regex>

using namespace vtpm;
using namespace vtpm::test;
using namespace std::chrono_literals;

namespace {

constexpr uid_t kAlice = 54321;
constexpr uid_t kBob = 54322;
constexpr int kPlaces = 64;  // of one user

// What the thread does meanwhile it does as another user.
class As {
 public:
  explicit As(uid_t uid) { REQUIRE(::seteuid(uid) == 0); }
  As(const As&) = delete;
  As& operator=(const As&) = delete;
  ~As() { [[maybe_unused]] const int back = ::seteuid(0); }
};

struct Fixture {
  explicit Fixture(std::optional<std::size_t> descriptors = {}) {
    place.descriptors = descriptors;
    daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    REQUIRE(::chmod((place.runtime() + "/vtpmd.sock").c_str(), 0666) == 0);
  }

  void halt() const { REQUIRE(::kill(daemon->pid(), SIGSTOP) == 0); }
  void go_on() const { REQUIRE(::kill(daemon->pid(), SIGCONT) == 0); }

  // In much less than it takes to close what was sent.
  bool serves_others() const {
    const auto answer = control::HttpClient(place.runtime(), 10s).call("GET", "/healthz");
    return answer && answer->find("\"ok\"") != std::string::npos;
  }

  UniqueFd connect(const std::string& name, int type) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = place.runtime() + "/" + name;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const As alice(kAlice);
    UniqueFd socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return socket;
  }
  UniqueFd attach() const { return connect("attach.sock", SOCK_SEQPACKET); }
  UniqueFd http() const { return connect("vtpmd.sock", SOCK_STREAM); }

  // Sends a connection that lingers, and forgets it.
  void send_lingering(const UniqueFd& socket, std::string_view bytes) {
    const UniqueFd slow = server.slow_to_close();
    REQUIRE(slow);
    const int fd = slow.get();
    REQUIRE(send_message(socket.get(), as_bytes(bytes), {&fd, 1}));
  }

  Place place;
  SilentServer server;
  std::unique_ptr<Daemon> daemon;
};

// What comes until the daemon ends the connection.
std::string rest_of(const UniqueFd& socket) {
  std::string all;
  char buffer[4096];
  for (;;) {
    pollfd p{socket.get(), POLLIN, 0};
    if (::poll(&p, 1, 10'000) <= 0) return all + "(no end)";
    const ssize_t n = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return all;
    all.append(buffer, static_cast<std::size_t>(n));
  }
}

// A request that fills Beast's first read, so that what is behind it stays in the socket.
std::string one_read() {
  const std::string begin = "GET /healthz HTTP/1.1\r\nConnection: close\r\nX: ", end = "\r\n\r\n";
  return begin + std::string(512 - begin.size() - end.size(), 'x') + end;
}

// A listening socket, of a name that the kernel chooses.
UniqueFd listen_anywhere() {
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)) == 0);
  REQUIRE(::listen(listener.get(), 4) == 0);
  return listener;
}

// A connection to it, which waits to be accepted.
UniqueFd connect_to(const UniqueFd& listener) {
  sockaddr_un address{};
  socklen_t length = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(::getsockname(listener.get(), generic, &length) == 0);
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(socket.get(), generic, length) == 0);
  return socket;
}

// Sends what is too long for a message, with eight copies of `fd`; the reply's error.
ErrorCode send_refused(const Place& place, int fd) {
  const auto socket = connect_seqpacket(place.runtime() + "/attach.sock");
  if (!socket) return socket.error().kind();
  const std::vector<int> fds(kMaxMessageFds, fd);
  const auto deadline = after(10s);
  const auto sent = send_message(socket->get(), Bytes(control::kMaxAttachMessage + 1), fds, deadline);
  if (!sent) return sent.error().kind();
  const auto answer = receive_message(socket->get(), control::kMaxAttachMessage, deadline);
  if (!answer) return answer.error().kind();
  return control::parse_attach_reply(answer->bytes).error().kind();
}

ErrorCode send_refused_as(uid_t uid, const Place& place, int fd) {
  return static_cast<ErrorCode>(as_user(uid, [&] { return static_cast<int>(send_refused(place, fd)); }));
}

}  // namespace

TEST_CASE("slow descriptors: those in a connection that is refused hold nobody up") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  Fixture f;
  const bool http = GENERATE(false, true);
  const auto connect = [&] { return http ? f.http() : f.attach(); };
  const std::size_t before = f.daemon->descriptors();
  f.halt();
  std::vector<UniqueFd> places;
  for (int i = 0; i < kPlaces; ++i)
    places.push_back(connect());
  const UniqueFd refused = connect();
  f.send_lingering(refused, "x");
  f.go_on();
  CHECK(rest_of(refused).empty());
  CHECK(f.serves_others());
  CHECK(f.place.log().find("one of uid 54321 is refused") != std::string::npos);
  places.clear();
  CHECK(eventually([&] { return f.daemon->descriptors() <= before; }));
  CHECK(f.serves_others());
}

TEST_CASE("slow descriptors: those of a malformed message, and those behind it, hold nobody up") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  Fixture f;
  const std::size_t before = f.daemon->descriptors();
  f.halt();
  const UniqueFd malformed = f.attach();
  f.send_lingering(malformed, "{}");
  UniqueFd unread = f.attach();
  f.send_lingering(unread, std::string(control::kMaxAttachMessage + 1, ' '));
  f.send_lingering(unread, "{}");
  unread.reset();
  f.go_on();
  const auto answer = receive_message(malformed.get(), control::kMaxAttachMessage, after(10s));
  REQUIRE(answer);
  CHECK(control::parse_attach_reply(answer->bytes).error().kind() == ErrorCode::Malformed);
  CHECK(eventually([&] { return f.daemon->descriptors() <= before + 1; }));  // `malformed` is served on
  CHECK(f.serves_others());
}

TEST_CASE("slow descriptors: those that come with HTTP hold nobody up, and the request is refused") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  Fixture f;
  const std::size_t before = f.daemon->descriptors();
  f.halt();
  const UniqueFd early = f.http(), within = f.http(), late = f.http();
  f.send_lingering(early, "G");
  REQUIRE(send_message(within.get(), as_bytes("POST /v1/instances HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")));
  f.send_lingering(within, "}");
  REQUIRE(send_message(late.get(), as_bytes(one_read())));
  f.send_lingering(late, "x");
  f.go_on();
  CHECK(f.serves_others());
  CHECK(rest_of(early).starts_with("HTTP/1.1 400"));
  CHECK(rest_of(within).starts_with("HTTP/1.1 400"));
  CHECK(rest_of(late).starts_with("HTTP/1.1 "));  // 200, if what is behind it was not read with it
  CHECK(eventually([&] { return f.daemon->descriptors() <= before; }));
  CHECK(f.serves_others());
}

TEST_CASE("slow descriptors: those in a listening socket that gets no engine hold nobody up") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  Fixture f;
  REQUIRE(as_user(kAlice, [&] {
            return f.daemon->client().call("POST", "/v1/instances", R"({"name":"mine"})") ? 0 : 1;
          }) == 0);
  const UniqueFd connection = f.attach();
  const auto attach = [&](const UniqueFd& listener, int number) {
    const control::AttachRequest request{"mine", control::NodeKind::Raw, "/" + std::to_string(number),
                                         control::Backend::Socket};
    const int fd = listener.get();
    REQUIRE(send_message(connection.get(), as_bytes(control::serialize(request)), {&fd, 1}));
  };
  const auto outcome = [&] {
    const auto answer = receive_message(connection.get(), control::kMaxAttachMessage, after(20s));
    REQUIRE(answer);
    return control::parse_attach_reply(answer->bytes);
  };
  constexpr int kMaxNodes = 16;
  for (int i = 0; i < kMaxNodes; ++i) {
    attach(listen_anywhere(), i);
    REQUIRE(outcome());
  }
  f.halt();
  {
    const UniqueFd listener = listen_anywhere();
    f.send_lingering(connect_to(listener), "x");
    attach(listener, kMaxNodes);
  }
  f.go_on();
  CHECK(f.serves_others());
  CHECK(outcome().error().kind() == ErrorCode::Exhausted);
}

TEST_CASE("slow descriptors: what can never be closed is a limited nuisance to its user alone") {
  if (!StuckFile(0)) VTPM_SKIP("needs root and /dev/fuse");
  Fixture f;
  const StuckFile stuck(f.daemon->pid());
  REQUIRE(stuck);
  // Hers wait for each other, up to a limit.
  ErrorCode last = ErrorCode::Malformed;
  for (int i = 0; i < 10 && last == ErrorCode::Malformed; ++i)
    last = send_refused_as(kAlice, f.place, stuck.get());
  CHECK(last == ErrorCode::Busy);
  CHECK(stuck.closes() == 1);
  const UniqueFd over_http = f.http();
  REQUIRE(send_message(over_http.get(), as_bytes("GET /healthz HTTP/1.1\r\n\r\n")));
  CHECK(rest_of(over_http).starts_with("HTTP/1.1 409"));
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK(send_refused_as(kBob, f.place, null.get()) == ErrorCode::Malformed);
  CHECK(f.serves_others());
}

TEST_CASE("slow descriptors: with too many that cannot be closed nobody is accepted, until they are") {
  if (!StuckFile(0)) VTPM_SKIP("needs root and /dev/fuse");
  Fixture f(1024);  // a quarter of them are those of four users
  auto stuck = std::make_unique<StuckFile>(f.daemon->pid());
  for (uid_t user = kAlice; user < kAlice + 4; ++user)
    for (int i = 0; i < 8; ++i)
      CHECK(send_refused_as(user, f.place, stuck->get()) == ErrorCode::Malformed);
  CHECK_FALSE(control::HttpClient(f.place.runtime(), 2s).call("GET", "/healthz"));
  CHECK(f.place.log().find("nobody is accepted") != std::string::npos);
  stuck.reset();
  CHECK(eventually([&] { return f.serves_others(); }));
}

TEST_CASE("slow descriptors: who is refused often leaves a few lines in the log, with the number") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  constexpr int kRefused = 500;
  const Fixture f;
  f.halt();
  std::vector<UniqueFd> all;
  for (int i = 0; i < kPlaces + kRefused; ++i)
    all.push_back(f.attach());
  f.go_on();
  const std::regex line("one of uid 54321 is refused(?: \\(the last of ([0-9]+)\\))?\n");
  int lines = 0, refused = 0;
  const auto count = [&] {
    const std::string log = f.place.log();
    lines = refused = 0;
    for (std::sregex_iterator i(log.begin(), log.end(), line), end; i != end; ++i, ++lines)
      refused += (*i)[1].matched ? std::stoi((*i)[1]) : 1;
    return refused >= kRefused;
  };
  CHECK(eventually(count));
  CHECK(refused == kRefused);
  CHECK(lines < 20);
}
