// SPDX-License-Identifier: Apache-2.0
// Socket nodes for tests: listening sockets that a real engine serves, and what a program does with them.
#pragma once

#include "tests/support/catch_result.h"
#include "tests/support/engine.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/device/socket_node.h>

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace vtpm::test {

using control::NodeKind;

constexpr int kPatience = 60'000;  // ms, until a test that waits in vain fails

// A listening socket at a path, as `vtpmctl attach --backend socket` makes it.
class Listener {
 public:
  Listener() {
    auto made = device::make_socket_node(path());
    REQUIRE(made);
    listener_ = std::move(*made);
  }
  std::string path() const { return directory_.path("tpm.sock"); }
  UniqueFd take() { return std::move(listener_); }
  UniqueFd copy() const { return UniqueFd(::fcntl(listener_.get(), F_DUPFD_CLOEXEC, 3)); }
  // Ends it for all who have it, as vtpmd does when the node is detached.
  void end() {
    REQUIRE(::shutdown(listener_.get(), SHUT_RDWR) == 0);
    listener_.reset();
  }

 private:
  TemporaryDirectory directory_;
  UniqueFd listener_;
};

// An engine that serves a managed and a raw socket.
struct Connected {
  std::unique_ptr<ipc::Zygote> zygote = start_zygote();
  ipc::SpawnedEngine engine = std::move(*zygote->spawn());
  Listener managed;
  Listener raw;

  Connected() {
    REQUIRE(engine.link->power_on());
    REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
    REQUIRE(serve(NodeKind::Managed, managed));
    REQUIRE(serve(NodeKind::Raw, raw));
  }
  Result<> serve(NodeKind kind, const Listener& listener) const {
    return engine.link->serve(kind, listener.copy(), ipc::kChannelSocket);
  }
  ipc::EngineStatus status() const {
    const auto status = engine.link->status();
    REQUIRE(status);
    return *status;
  }
};

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// An invalid descriptor where the connection is refused (errno says why).
inline UniqueFd try_to_connect(const Listener& listener) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(socket);
  const auto address = address_of(listener.path());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    socket.reset();
  return socket;
}

inline UniqueFd connect_to(const Listener& listener) {
  UniqueFd socket = try_to_connect(listener);
  REQUIRE(socket);
  return socket;
}

inline void send_all(const UniqueFd& socket, BytesView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    REQUIRE(n > 0);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

// Whether there is something to read, or the end, within so many ms.
inline bool comes(const UniqueFd& socket, int milliseconds = kPatience) {
  pollfd p{socket.get(), POLLIN, 0};
  return ::poll(&p, 1, milliseconds) == 1;
}

// So many bytes, fewer at the end of the stream.
inline Bytes receive_bytes(const UniqueFd& socket, std::size_t count) {
  Bytes bytes;
  while (bytes.size() < count) {
    REQUIRE(comes(socket));
    std::uint8_t part[4096];
    const ssize_t n = ::read(socket.get(), part, std::min(sizeof part, count - bytes.size()));
    if (n < 0) REQUIRE(errno == ECONNRESET);
    if (n <= 0) break;
    put(bytes, BytesView(part, static_cast<std::size_t>(n)));
  }
  return bytes;
}

inline Bytes receive_response(const UniqueFd& socket) {
  Bytes response = receive_bytes(socket, tpm::kHeaderSize);
  if (response.size() < tpm::kHeaderSize) return response;
  const auto size = get_be<u32>(response, 2);
  REQUIRE(size >= tpm::kHeaderSize);
  put(response, receive_bytes(socket, size - tpm::kHeaderSize));
  return response;
}

inline bool has_ended(const UniqueFd& socket) {
  return receive_bytes(socket, 1).empty();
}

inline Bytes answer_to(const UniqueFd& socket, BytesView bytes) {
  send_all(socket, bytes);
  return receive_response(socket);
}

inline Bytes read_public(u32 handle) {
  return command(0x173, Writer().add(handle));
}
inline constexpr u32 kCommandSize = 0x142;  // TPM_RC_COMMAND_SIZE
inline constexpr u32 kBadTag = 0x01e;       // TPM_RC_BAD_TAG

// Until condition() is true; what it waits for decides, not the clock.
template <class Condition>
void eventually(Condition condition) {
  for (int i = 0; i < kPatience / 5; ++i) {
    if (condition()) return;
    ::poll(nullptr, 0, 5);
  }
  FAIL("waited in vain");
}

}  // namespace vtpm::test
