// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/hostile_fd.h"

#include <vtpm/device/cgroup.h>
#include <vtpm/os/bytes.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
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

// Only a writer may pass it on: the kernel asks for the rights of who opened it, and for this.
bool is_open_for_writing(int fd) {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_PATH) == 0 && (flags & O_ACCMODE) != O_RDONLY;
}

// By the number of the device, which the kernel tells without asking the file system; fstatfs(2) would ask a
// FUSE server, which need not answer.
Result<bool> is_on_cgroup_mount(const struct statx& info) {
  VTPM_TRY(const Bytes text, read_file("/proc/self/mountinfo", device::kMaxMountInfo));
  VTPM_TRY(const auto mounts, device::cgroup_mounts(as_text(text)));
  return std::any_of(mounts.begin(), mounts.end(), [&](const device::CgroupMount& mount) {
    return mount.major == info.stx_dev_major && mount.minor == info.stx_dev_minor;
  });
}

bool is_of_cgroup_type(int fd) {
  struct statfs info {};
  return ::fstatfs(fd, &info) == 0 &&
         (info.f_type == CGROUP_SUPER_MAGIC || info.f_type == CGROUP2_SUPER_MAGIC);
}

// A file of a cgroup file system has the name that the kernel gave it. "cgroup.procs (deleted)": the cgroup
// is gone.
bool is_called(int fd, std::string_view name) {
  std::array<char, 4096> target{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), target.data(), target.size());
  return size > 0 &&
         std::string_view(target.data(), static_cast<std::size_t>(size)).ends_with("/" + std::string(name));
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

Result<> check_cgroup_procs(int fd) {
  VTPM_TRY(const struct statx info, look_at(fd));
  const auto refused = [](const std::string& why) {
    return Error(ErrorCode::Malformed, "the descriptor of the container's cgroup.procs " + why);
  };
  if (!S_ISREG(info.stx_mode)) return refused("is not a regular file");
  if (!is_open_for_writing(fd)) return refused("is not open for writing");
  VTPM_TRY(const bool on_cgroup, is_on_cgroup_mount(info));
  if (!on_cgroup || !is_of_cgroup_type(fd)) return refused("is of no cgroup hierarchy that is mounted here");
  if (!is_called(fd, "cgroup.procs")) return refused("is another file of a cgroup, or its cgroup is gone");
  return {};
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
