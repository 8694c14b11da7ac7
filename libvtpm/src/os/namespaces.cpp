// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/file.h>
#include <vtpm/os/mount.h>
#include <vtpm/os/namespaces.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace vtpm {
namespace {

constexpr const char* kNobody = "65534";

constexpr std::size_t kMaxText = 1024;

Result<int> wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return errno_error("waitpid", errno);
  return status;
}

Result<> write_proc(const std::string& name, std::string_view text) {
  const UniqueFd file(::open(("/proc/self/" + name).c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) return errno_error(name, errno);
  if (::write(file.get(), text.data(), text.size()) < 0) return errno_error(name, errno);
  return {};
}

// One id, which is all that a process without privilege may map.
Result<> map_ids(uid_t uid, gid_t gid) {
  VTPM_TRY_VOID(write_proc("setgroups", "deny"));
  VTPM_TRY_VOID(write_proc("uid_map", std::string(kNobody) + " " + std::to_string(uid) + " 1"));
  return write_proc("gid_map", std::string(kNobody) + " " + std::to_string(gid) + " 1");
}

// In a mount namespace of its own.
Result<> leave_file_systems() {
  // Mounts of the host would come to a copy of its mount namespace for ever.
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error("mount of / as private", errno);
  VTPM_TRY(const UniqueFd empty,
           make_detached_mount("tmpfs", {{"mode", "0555"}, {"size", "4k"}},
                               MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return errno_error("/", errno);
  VTPM_TRY_VOID(move_mount_onto(empty.get(), root.get()));
  // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie on the new one, and is then taken away.
  if (::fchdir(empty.get()) != 0) return errno_error("fchdir", errno);
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return errno_error("pivot_root", errno);
  if (::umount2(".", MNT_DETACH) != 0) return errno_error("umount of the old root", errno);
  if (::chdir("/") != 0) return errno_error("chdir", errno);
  return {};
}

Result<> enter(Root root) {
  const uid_t uid = ::geteuid();
  const gid_t gid = ::getegid();
  const int mounts = root == Root::Empty ? CLONE_NEWNS : 0;
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | mounts) != 0)
    return errno_error("unshare", errno);
  // Root without CAP_SETFCAP may not map itself. A process without a number is no less confined.
  (void)map_ids(uid, gid);
  if (root == Root::Empty) return leave_file_systems();
  return {};
}

// Whether a child can, and its error's text if not: a mount namespace once entered cannot be left, and a copy
// of the host's mounts that stays keeps file systems busy and FUSE sessions alive.
Result<> try_in_child(Root root) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe2", errno);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  VTPM_TRY(const ForkedProcess child, fork_process(false));
  if (child.pid == 0) {
    const auto entered = enter(root);
    if (!entered)
      (void)!::write(writer.get(), entered.error().context.data(), entered.error().context.size());
    ::_exit(entered ? 0 : 1);
  }
  writer.reset();
  VTPM_TRY(const Bytes why, read_all(reader.get(), kMaxText));
  VTPM_TRY(const int status, wait_for(child.pid));
  if (status == 0) return {};
  return Error(ErrorCode::Unsupported, std::string(as_text(why)));
}

}  // namespace

Result<> enter_own_namespaces(Root root) {
  if (root == Root::Empty) VTPM_TRY_VOID(try_in_child(root));
  return enter(root);
}

Result<ForkedProcess> fork_process(bool own_pid_namespace) {
  int pidfd = -1;
  const unsigned long flags =
      static_cast<unsigned long>(CLONE_PIDFD | SIGCHLD | (own_pid_namespace ? CLONE_NEWPID : 0));
  const long pid = ::syscall(SYS_clone, flags, nullptr, &pidfd, nullptr, nullptr);
  if (pid < 0 && errno == ENOSPC)
    return Error(ErrorCode::Exhausted, "clone: the limit of pid namespaces (user.max_pid_namespaces)");
  if (pid < 0) return errno_error("clone", errno);
  return ForkedProcess{static_cast<pid_t>(pid), UniqueFd(pid == 0 ? -1 : pidfd)};
}

bool may_make_pid_namespaces() {
  const auto child = fork_process(true);
  if (!child) return false;
  if (child->pid == 0) ::_exit(0);
  const auto status = wait_for(child->pid);
  return status && *status == 0;
}

}  // namespace vtpm
