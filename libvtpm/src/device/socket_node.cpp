// SPDX-License-Identifier: Apache-2.0
#include "device/node_path.h"

#include <vtpm/device/socket_node.h>
#include <vtpm/os/unix_socket.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vtpm::device {
namespace {

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return Error(ErrorCode::Malformed, path + ": a socket's path has at most " +
                                           std::to_string(sizeof address.sun_path - 1) + " bytes, not " +
                                           std::to_string(path.size()));
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

const sockaddr* as_sockaddr(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// No peer is waited for: a full listen queue is one.
bool is_listened_to(const sockaddr_un& address) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return !socket || ::connect(socket.get(), as_sockaddr(address), sizeof address) == 0 ||
         errno != ECONNREFUSED;
}

// Its file has the mode of the socket when bind(2) makes it. To change it by name would be too late: somebody
// who may write to the directory could have put another file there.
Result<UniqueFd> socket_of_mode(mode_t mode) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket || ::fchmod(socket.get(), mode) != 0) return errno_error("socket", errno);
  return socket;
}

Result<> bind_to(const UniqueFd& socket, const sockaddr_un& address, const std::string& path) {
  if (::bind(socket.get(), as_sockaddr(address), sizeof address) == 0) return {};
  if (errno != EADDRINUSE) return errno_error(path, errno);
  // A socket that is of no use to anybody is what a TPM leaves that did not end in order.
  auto removed = remove_socket_node(path);
  if (!removed && is_socket(path)) return removed;
  if (removed && ::bind(socket.get(), as_sockaddr(address), sizeof address) == 0) return {};
  return Error(ErrorCode::Conflict, path + " is there already; choose another path, or remove it");
}

}  // namespace

Result<UniqueFd> make_socket_node(const std::string& path, mode_t mode) {
  VTPM_TRY(const auto parts, split(path));
  VTPM_TRY(const auto address, address_of(path));
  VTPM_TRY(const auto directory, open_directory(parts.directory));
  VTPM_TRY(UniqueFd socket, socket_of_mode(mode));
  refuse_descriptors(socket.get());  // where the kernel can
  VTPM_TRY_VOID(bind_to(socket, address, path));
  if (::listen(socket.get(), SOMAXCONN) == 0) return socket;
  const int error = errno;
  ::unlinkat(directory.get(), parts.name.c_str(), 0);
  return errno_error(path, error);
}

void take_back_socket_node(const UniqueFd& listener, const std::string& path) {
  ::shutdown(listener.get(), SHUT_RDWR);
  (void)remove_socket_node(path);
}

bool is_socket(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode);
}

Result<> remove_socket_node(const std::string& path) {
  VTPM_TRY(const auto address, address_of(path));
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return errno_error(path, errno);
  if (!S_ISSOCK(info.st_mode)) return Error(ErrorCode::Conflict, path + " is not a socket");
  if (is_listened_to(address))
    return Error(ErrorCode::Conflict, path + " is the socket of a program that still listens on it");
  if (::unlink(path.c_str()) != 0) return errno_error(path, errno);
  return {};
}

}  // namespace vtpm::device
