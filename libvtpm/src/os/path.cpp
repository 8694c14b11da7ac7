// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/path.h>

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace vtpm {
namespace {

// The file system ids of the thread, changed for one scope. Leaving id 0 drops the file capabilities as well,
// and coming back to it restores them (capabilities(7)).
class FileSystemIds {
 public:
  // The group first: it needs the right that the user's change gives up.
  FileSystemIds(uid_t uid, gid_t gid) noexcept
      : old_gid_(static_cast<gid_t>(::setfsgid(gid))), old_uid_(static_cast<uid_t>(::setfsuid(uid))) {}
  FileSystemIds(const FileSystemIds&) = delete;
  FileSystemIds& operator=(const FileSystemIds&) = delete;
  ~FileSystemIds() {
    ::setfsuid(old_uid_);
    ::setfsgid(old_gid_);
  }

 private:
  gid_t old_gid_;
  uid_t old_uid_;
};

Result<UniqueFd> open_resolved(int directory, const std::string& path, int flags, std::uint64_t resolve) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_CLOEXEC;
  how.resolve = resolve;
  UniqueFd fd(static_cast<int>(::syscall(SYS_openat2, directory, path.c_str(), &how, sizeof how)));
  if (!fd) return errno_error(path, errno);
  return fd;
}

}  // namespace

Result<UniqueFd> open_in_root(int root, const std::string& path, int flags) {
  return open_resolved(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

Result<UniqueFd> open_beneath(int directory, const std::string& path, int flags) {
  return open_resolved(directory, path, flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
}

Result<UniqueFd> make_empty_file(int directory, const std::string& name, uid_t uid, gid_t gid) {
  int made = -1;
  int error = 0;
  {
    const FileSystemIds ids(uid, gid);
    made = ::openat(directory, name.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    error = errno;
  }
  const UniqueFd file(made);
  if (!file && error == EEXIST) return Error(ErrorCode::Conflict, name + " exists already");
  if (!file) return errno_error(name, error);
  UniqueFd path(::openat(directory, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!path) return errno_error(name, errno);
  return path;
}

}  // namespace vtpm
