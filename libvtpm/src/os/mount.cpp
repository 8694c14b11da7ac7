// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/mount.h>

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace vtpm {
namespace {

// The kernel's own explanation of a failed fsconfig, if it left one.
std::string kernel_message(int context) {
  std::array<char, 512> text;
  const ssize_t n = ::read(context, text.data(), text.size());
  return n > 0 ? " (" + std::string(text.data(), static_cast<std::size_t>(n)) + ")" : "";
}

Error mount_error(const std::string& type, std::string_view step, int context, int errno_value) {
  const std::string detail = context >= 0 ? kernel_message(context) : "";
  return errno_error("mount of " + type + ": " + std::string(step) + detail, errno_value);
}

}  // namespace

Result<UniqueFd> make_detached_mount(const std::string& type,
                                     const std::vector<std::pair<std::string, std::string>>& options,
                                     unsigned mount_attributes) {
  const UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, type.c_str(), FSOPEN_CLOEXEC)));
  if (!context) return mount_error(type, "fsopen", -1, errno);
  for (const auto& [key, value] : options) {
    const auto command = value.empty() ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
    if (::syscall(SYS_fsconfig, context.get(), command, key.c_str(), value.empty() ? nullptr : value.c_str(),
                  0) != 0)
      return mount_error(type, "option " + key, context.get(), errno);
  }
  if (::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return mount_error(type, "create", context.get(), errno);
  UniqueFd mount(static_cast<int>(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, mount_attributes)));
  if (!mount) return mount_error(type, "fsmount", context.get(), errno);
  return mount;
}

Result<UniqueFd> clone_mount(int mount) {
  UniqueFd clone(static_cast<int>(
      ::syscall(SYS_open_tree, mount, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)));
  if (!clone) return errno_error("open_tree", errno);
  return clone;
}

Result<> move_mount_onto(int mount, int target) {
  if (::syscall(SYS_move_mount, mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) !=
      0)
    return errno_error("move_mount", errno);
  return {};
}

Result<> detach_mount(int mount) {
  // By descriptor, so that what is unmounted is what was looked at; <sys/mount.h> clashes with
  // <linux/mount.h>, hence the bare system call.
  constexpr int kMntDetach = 2;
  const std::string path = "/proc/self/fd/" + std::to_string(mount);
  if (::syscall(SYS_umount2, path.c_str(), kMntDetach) != 0) return errno_error("umount", errno);
  return {};
}

Result<> join_namespaces(int pidfd, int which) {
  if (::setns(pidfd, which) != 0) return errno_error("setns", errno);
  return {};
}

}  // namespace vtpm
