// SPDX-License-Identifier: Apache-2.0
// A descriptor whose last close(2) waits: for what hostile peers pass.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/unique_fd.h>

#include <catch2/catch.hpp>
#include <netinet/in.h>
#include <sys/socket.h>

namespace vtpm::test {

// A TCP server on the loopback interface that reads nothing.
class SilentServer {
 public:
  SilentServer() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    address_.sin_family = AF_INET;
    address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address_;
    REQUIRE(::bind(listener_.get(), generic(), length) == 0);
    REQUIRE(::listen(listener_.get(), 64) == 0);
    REQUIRE(::getsockname(listener_.get(), generic(), &length) == 0);
  }

  // A connection to it whose last close(2) takes a minute, or as long as this server is there.
  UniqueFd slow_to_close() {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const linger wait{1, 60};
    if (::connect(socket.get(), generic(), sizeof address_) != 0 ||
        ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &wait, sizeof wait) != 0)
      return {};
    const Bytes data(65536, 0);
    while (::send(socket.get(), data.data(), data.size(), MSG_DONTWAIT) > 0) {
    }
    return socket;
  }

 private:
  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&address_); }

  UniqueFd listener_;
  sockaddr_in address_{};
};

}  // namespace vtpm::test
