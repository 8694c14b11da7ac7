// SPDX-License-Identifier: Apache-2.0
#include "device/mount_point.h"

#include <vtpm/os/file.h>
#include <vtpm/os/path.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <limits>
#include <sstream>

namespace vtpm::device {
namespace {

constexpr std::size_t kMaxMountInfo = std::size_t{64} * 1024 * 1024;

// AT_STATX_DONT_SYNC: what the kernel knows already, without asking a FUSE server.
Result<struct statx> look_at(int file) {
  struct statx s {};
  if (::statx(file, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_MNT_ID, &s) != 0)
    return errno_error("statx", errno);
  return s;
}

bool is_mount_root(const struct statx& s) noexcept {
  return (s.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

std::string describe(const struct statx& s) {
  if (S_ISCHR(s.stx_mode)) return "a character device";
  if (S_ISDIR(s.stx_mode)) return "a directory";
  if (S_ISLNK(s.stx_mode)) return "a symbolic link";
  if (is_mount_root(s)) return "a mount";
  if (S_ISREG(s.stx_mode)) return "a file with contents";
  return "a special file";
}

}  // namespace

bool is_plain_empty_file(int file) noexcept {
  const auto s = look_at(file);
  return s && S_ISREG(s->stx_mode) && s->stx_size == 0 && !is_mount_root(*s);
}

Result<MountPoint> mount_point(int directory, const std::string& name, uid_t uid, gid_t gid,
                               const std::string& shown) {
  UniqueFd there(::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!there && errno != ENOENT) return errno_error(shown, errno);
  if (!there) {
    auto made = make_empty_file(directory, name, uid, gid);
    if (!made) return made.error().within("cannot make " + shown);
    return MountPoint{std::move(*made), true};
  }
  VTPM_TRY(const auto s, look_at(there.get()));
  const auto ours = is_vtpm_mount(there.get());
  if (ours && *ours)
    return Error(ErrorCode::Conflict,
                 shown + " is there already: a vTPM's node; `vtpmctl detach` removes it");
  if (!is_plain_empty_file(there.get()))
    return Error(ErrorCode::Conflict,
                 shown + " is there already: " + describe(s) + "; choose another path, or remove it");
  return MountPoint{std::move(there), false};
}

Result<bool> is_vtpm_mount(int file) {
  VTPM_TRY(const auto s, look_at(file));
  if (!is_mount_root(s)) return false;
  VTPM_TRY(const auto info, read_file("/proc/self/mountinfo", kMaxMountInfo));
  std::istringstream lines{std::string(as_text(info))};
  const std::string id = std::to_string(s.stx_mnt_id) + " ";
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, id.size(), id) != 0) continue;
    return line.find(" - fuse vtpm ") != std::string::npos;
  }
  return false;
}

Result<unsigned> id_of_container_root(std::string_view map) {
  std::istringstream lines{std::string(map)};
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  while (lines >> inside >> outside >> count) {
    if (inside == 0 && count > 0 && outside < std::numeric_limits<unsigned>::max())
      return static_cast<unsigned>(outside);
  }
  return Error(ErrorCode::NotFound, "the container's user namespace has no root user");
}

}  // namespace vtpm::device
