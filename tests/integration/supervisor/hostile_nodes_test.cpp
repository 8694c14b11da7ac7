// SPDX-License-Identifier: Apache-2.0
// Sockets that an instance's owner made to harm: in their listen queue is what is slow to close. That stalls
// nobody but the owner, whoever closes such a socket last.
#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/kernel.h"
#include "tests/support/slow_to_close.h"
#include "tests/support/tpm_wire.h"

#include <poll.h>
#include <sys/un.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr int kPassRights = 83;  // SO_PASSRIGHTS

// A listening socket with an address of the kernel's choice.
class HostileSocket {
 public:
  HostileSocket() : listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sa_family_t family = AF_UNIX;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&family), sizeof family) == 0);
    REQUIRE(::listen(listener_.get(), 8) == 0);
    REQUIRE(::getsockname(listener_.get(), generic(), &length_) == 0);
  }
  int listener() const { return listener_.get(); }
  // -1: the kernel knows no such option.
  int takes_descriptors() const {
    int value = -1;
    socklen_t size = sizeof value;
    return ::getsockopt(listener_.get(), SOL_SOCKET, kPassRights, &value, &size) == 0 ? value : -1;
  }
  UniqueFd connect() {
    UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(client.get(), generic(), length_) == 0);
    return client;
  }
  // The only connection of the raw node: the next ones stay in the queue.
  void take_the_raw_node() {
    holder_ = connect();
    REQUIRE(write_all(holder_.get(), wire::get_random()));
    pollfd answer{holder_.get(), POLLIN, 0};
    REQUIRE(::poll(&answer, 1, 10'000) == 1);
  }
  // As its owner can, who kept it; and then has it no longer.
  void poison() {
    const int yes = 1;
    (void)::setsockopt(listener_.get(), SOL_SOCKET, kPassRights, &yes, sizeof yes);
    const UniqueFd client = connect(), slow = server_.slow_to_close();
    REQUIRE(slow);
    const int fd = slow.get();
    REQUIRE(send_message(client.get(), Bytes{1}, {&fd, 1}));
    listener_.reset();
  }

 private:
  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address_); }

  SilentServer server_;
  sockaddr_un address_{};
  socklen_t length_ = sizeof address_;
  UniqueFd listener_;
  UniqueFd holder_;
};

constexpr const char* kPath = "/somewhere/tpm.sock";

void attach(const Place& place, const std::string& id, const HostileSocket& socket) {
  const control::AttachRequest request{id, NodeKind::Raw, kPath, control::Backend::Socket};
  REQUIRE(send(place, request, {socket.listener()}));
}

pid_t engine_of(const Daemon& daemon, const std::string& id) {
  return call(daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
}

std::unique_ptr<Daemon> start(const Place& place) {
  auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  return daemon;
}

// Another instance comes into being as ever: vtpmd and the keeper are there for it.
void is_unmoved(const Place& place, const Daemon& daemon) {
  const std::string other = create(daemon);
  CHECK(call(daemon, "GET", "/v1/instances/" + other)["state"] == "running");
  INFO(place.log());
  CHECK(place.log().find("instance " + other + " would end with this vtpmd") == std::string::npos);
  CHECK(place.log().find("the keeper is gone") == std::string::npos);
}

}  // namespace

TEST_CASE("hostile nodes: a socket that is attached takes no descriptors, whoever made it") {
  const Place place;
  const auto daemon = start(place);
  const HostileSocket socket;
  CHECK(socket.takes_descriptors() == (kernel_refuses_descriptors() ? 1 : -1));
  attach(place, create(*daemon), socket);
  CHECK(socket.takes_descriptors() == (kernel_refuses_descriptors() ? 0 : -1));
}

TEST_CASE("hostile nodes: what is slow to close stalls neither vtpmd nor the keeper, however the node ends") {
  const std::string end = GENERATE("detached", "destroyed", "engine killed");
  INFO(end);
  const Place place;
  const auto daemon = start(place);
  const std::string id = create(*daemon);
  HostileSocket socket;
  attach(place, id, socket);
  socket.take_the_raw_node();
  socket.poison();
  if (end == "detached") REQUIRE(send(place, control::DetachRequest{id, kPath}, {}));
  if (end == "destroyed") call(*daemon, "DELETE", "/v1/instances/" + id);
  if (end == "engine killed") {
    REQUIRE(::kill(engine_of(*daemon, id), SIGKILL) == 0);
    REQUIRE(eventually([&] { return call(*daemon, "GET", "/v1/instances/" + id)["state"] == "failed"; }));
  }
  is_unmoved(place, *daemon);
}

TEST_CASE("hostile nodes: what is slow to close does not stall the vtpmd that finds it") {
  const Place place;
  auto daemon = start(place);
  const std::string id = create(*daemon);
  HostileSocket socket;
  attach(place, id, socket);
  socket.take_the_raw_node();
  socket.poison();
  const pid_t engine = engine_of(*daemon, id);
  daemon->stop(SIGKILL);
  REQUIRE(::kill(engine, SIGKILL) == 0);
  daemon = start(place);
  is_unmoved(place, *daemon);
}
