// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/hostile_fd.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

namespace vtpm::supervisor {
namespace {

constexpr unsigned kMiscMajor = 10;  // Documentation/admin-guide/devices.txt
constexpr unsigned kFuseMinor = 229;
constexpr std::size_t kChunk = 65536;

// AT_STATX_DONT_SYNC: what the kernel knows already; a FUSE or network server is not asked.
Result<struct statx> look_at(int fd) {
  struct statx info {};
  if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &info) != 0)
    return errno_error("statx", errno);
  return info;
}

// Only sockets have options: others are not asked.
bool has_option(int fd, int option, int expected) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == expected;
}

}  // namespace

Result<> check_fuse_device(int fd) {
  VTPM_TRY(const struct statx info, look_at(fd));
  if (S_ISCHR(info.stx_mode) && info.stx_rdev_major == kMiscMajor && info.stx_rdev_minor == kFuseMinor)
    return {};
  return Error(ErrorCode::Malformed, "a descriptor that should be /dev/fuse is something else");
}

Result<> check_listening_socket(int fd) {
  if (has_option(fd, SO_DOMAIN, AF_UNIX) && has_option(fd, SO_TYPE, SOCK_STREAM) &&
      has_option(fd, SO_ACCEPTCONN, 1))
    return {};
  return Error(ErrorCode::Malformed,
               "a descriptor that should be a listening Unix stream socket is something else");
}

Result<> check_regular_file(int fd) {
  VTPM_TRY(const struct statx info, look_at(fd));
  if (S_ISREG(info.stx_mode)) return {};
  return Error(ErrorCode::Malformed, "the descriptor of config.json is not a regular file");
}

Result<std::string> digest_of_file(int fd) {
  Bytes content;
  for (;;) {
    const std::size_t have = content.size();
    if (have > kMaxConfig) return Error(ErrorCode::Malformed, "config.json is larger than 4 MiB");
    content.resize(have + kChunk);
    const ssize_t n = ::pread(fd, content.data() + have, kChunk, static_cast<off_t>(have));
    if (n < 0 && errno != EINTR) return errno_error("reading config.json", errno);
    content.resize(have + static_cast<std::size_t>(n > 0 ? n : 0));
    if (n == 0) return "sha256:" + to_hex(tpm::sha256(content));
  }
}

}  // namespace vtpm::supervisor
