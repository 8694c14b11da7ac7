// SPDX-License-Identifier: Apache-2.0
// The library's resource manager over a TPM behind a Unix socket: each connection is a managed space.
//
// usage: space_server TPM_SOCKET LISTEN_SOCKET
//
// It lets the differential test compare the resource manager alone, without an engine around it.
#include <vtpm/space/resource_manager.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace vtpm;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

sockaddr_un address_of(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return address;
}

class SocketTpm final : public space::Transmit {
 public:
  explicit SocketTpm(const char* path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const auto address = address_of(path);
    if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("connect");
  }

  Result<BytesView> transmit(tpm::Locality, BytesView command) override {
    if (::send(socket_, command.data(), command.size(), MSG_NOSIGNAL) < 0) fail("send");
    std::size_t size = 0;
    while (size < tpm::kHeaderSize || size < get_be<std::uint32_t>(BytesView(buffer_), 2)) {
      const ssize_t got = ::recv(socket_, buffer_.data() + size, buffer_.size() - size, 0);
      if (got <= 0) fail("the TPM is gone");
      size += static_cast<std::size_t>(got);
    }
    return BytesView(buffer_).first(size);
  }

 private:
  int socket_;
  std::array<std::uint8_t, 2 * tpm::kBufferMax> buffer_{};
};

class Server {
 public:
  explicit Server(space::Transmit& tpm) : manager_(tpm) {}

  void open(int connection) { spaces_.emplace(connection, manager_.open(space::Kind::Managed).value()); }

  // False: the client is gone.
  bool serve(int connection) {
    std::array<std::uint8_t, 2 * tpm::kBufferMax> buffer{};
    const ssize_t got = ::recv(connection, buffer.data(), buffer.size(), 0);
    if (got <= 0) {
      manager_.close(spaces_.at(connection));
      spaces_.erase(connection);
      ::close(connection);
      return false;
    }
    const Bytes response =
        answer(spaces_.at(connection), BytesView(buffer).first(static_cast<std::size_t>(got)));
    if (::send(connection, response.data(), response.size(), MSG_NOSIGNAL) < 0) fail("send");
    return true;
  }

 private:
  Bytes answer(space::SpaceId space, BytesView command) {
    const auto check = tpm::check_command(command);
    if (check.code != tpm::ResponseCode::Success) return tpm::error_response(check.code);
    for (;;) {
      auto outcome = manager_.execute(space, tpm::Locality::tenant(), command, space::Clock::now()).value();
      if (auto* response = std::get_if<Bytes>(&outcome)) return std::move(*response);
      std::this_thread::sleep_until(std::get<space::SessionWait>(outcome).until);
    }
  }

  space::ResourceManager manager_;
  std::map<int, space::SpaceId> spaces_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: space_server TPM_SOCKET LISTEN_SOCKET\n");
    return 2;
  }
  SocketTpm tpm(argv[1]);
  Server server(tpm);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto address = address_of(argv[2]);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("bind");
  if (::listen(listener, 8) != 0) fail("listen");
  std::vector<pollfd> polled{{listener, POLLIN, 0}};
  for (;;) {
    if (::poll(polled.data(), polled.size(), -1) < 0) fail("poll");
    for (std::size_t i = polled.size(); i-- > 1;)
      if (polled[i].revents != 0 && !server.serve(polled[i].fd))
        polled.erase(polled.begin() + static_cast<std::ptrdiff_t>(i));
    if (polled[0].revents == 0) continue;
    const int connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) fail("accept");
    server.open(connection);
    polled.push_back({connection, POLLIN, 0});
  }
}
