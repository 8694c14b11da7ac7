// SPDX-License-Identifier: Apache-2.0
// Sockets that an instance's owner made by other means than ours.
#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/kernel.h"

#include <sys/socket.h>
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

 private:
  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address_); }

  sockaddr_un address_{};
  socklen_t length_ = sizeof address_;
  UniqueFd listener_;
};

constexpr const char* kPath = "/somewhere/tpm.sock";

void attach(const Place& place, const std::string& id, const HostileSocket& socket) {
  const control::AttachRequest request{id, NodeKind::Raw, kPath, control::Backend::Socket};
  REQUIRE(send(place, request, {socket.listener()}));
}

std::unique_ptr<Daemon> start(const Place& place) {
  auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  return daemon;
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
