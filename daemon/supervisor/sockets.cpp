// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/sockets.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace vtpm::supervisor {
namespace {

// Only a socket is removed: anything else there is not ours.
Result<> remove_stale(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return errno == ENOENT ? Result<>() : errno_error(path, errno);
  if (!S_ISSOCK(info.st_mode)) return Error(ErrorCode::Configuration, path + ": exists and is not a socket");
  if (::unlink(path.c_str()) != 0) return errno_error(path, errno);
  return {};
}

Result<> bind_to(int socket, const SocketSpec& spec) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (spec.path.size() >= sizeof address.sun_path)
    return Error(ErrorCode::Configuration,
                 spec.path + ": longer than a Unix socket's path may be (107 bytes)");
  std::memcpy(address.sun_path, spec.path.c_str(), spec.path.size() + 1);
  // Nobody connects before the mode and the group are right: Linux gives the file the mode of the socket. Not
  // by umask(2), which is every thread's.
  if (::fchmod(socket, 0) != 0) return errno_error(spec.path, errno);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return errno_error(spec.path, errno);
  if (spec.group && ::lchown(spec.path.c_str(), static_cast<uid_t>(-1), *spec.group) != 0)
    return errno_error(spec.path + ": changing the group (the daemon's user must be a member)", errno);
  if (::chmod(spec.path.c_str(), spec.mode) != 0) return errno_error(spec.path, errno);
  return {};
}

}  // namespace

Result<UniqueFd> claim_directory(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return errno_error(path, errno);
  const std::string lock = path + "/vtpmd.lock";
  UniqueFd fd(::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return errno_error(lock, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) return errno_error(lock, errno);
  return Error(ErrorCode::Conflict, path + ": another vtpmd uses this directory");
}

Result<UniqueFd> listen_at(const SocketSpec& spec) {
  VTPM_TRY_VOID(remove_stale(spec.path));
  UniqueFd socket(::socket(AF_UNIX, spec.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno_error("socket", errno);
  VTPM_TRY_VOID(bind_to(socket.get(), spec));
  if (::listen(socket.get(), SOMAXCONN) != 0) return errno_error(spec.path, errno);
  return socket;
}

}  // namespace vtpm::supervisor
