// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/slot_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <thread>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr const char* kSlotA = "slot-a";
constexpr const char* kSlotB = "slot-b";
constexpr auto kLockPause = 5ms;
constexpr int kDirectoryFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

Result<> sync_directory(int fd, const std::string& path) {
  if (::fsync(fd) != 0) return errno_error(path, errno);
  return {};
}

// Makes `path` or finds it.
Result<UniqueFd> make_root(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return errno_error(path, errno);
  UniqueFd fd(::open(path.c_str(), kDirectoryFlags));
  if (!fd) return errno_error(path, errno);
  const UniqueFd parent(::openat(fd.get(), "..", kDirectoryFlags));
  if (!parent) return errno_error(path, errno);
  VTPM_TRY_VOID(sync_directory(parent.get(), path));
  return fd;
}

Result<UniqueFd> make_file(int directory, const std::string& name, const std::string& path) {
  UniqueFd fd(::openat(directory, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return errno_error(path + "/" + name, errno);
  return fd;
}

// O_NONBLOCK: what stands in the file's place must not hold us.
Result<UniqueFd> open_file(int directory, const std::string& name, const std::string& path) {
  const std::string file = path + "/" + name;
  UniqueFd fd(::openat(directory, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd && (errno == ENOENT || errno == ELOOP || errno == ENXIO))
    return Error(ErrorCode::Corrupt, file + (errno == ENOENT ? " is missing" : " is not a regular file"));
  if (!fd) return errno_error(file, errno);
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return errno_error(file, errno);
  if (!S_ISREG(found.st_mode)) return Error(ErrorCode::Corrupt, file + " is not a regular file");
  return fd;
}

Result<> lock(int fd, std::chrono::milliseconds patience, const std::string& path) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return errno_error(path, errno);
    if (std::chrono::steady_clock::now() >= end)
      return Error(ErrorCode::Busy,
                   path +
                       ": an earlier engine of this instance has not ended yet. If it does not end, whatever "
                       "holds its socket is lost: end the vtpm-engine process that has this directory's "
                       "slot-a open (fuser -v) with SIGKILL; what it answered is in the files");
    std::this_thread::sleep_for(kLockPause);
  }
  return {};
}

Result<> unlink_at(int directory, const char* name, int flags, const std::string& path) {
  if (::unlinkat(directory, name, flags) == 0 || errno == ENOENT) return {};
  return errno_error(path + "/" + name, errno);
}

Result<SlotFds> make_slots(int root, const std::string& id, const std::string& path) {
  const UniqueFd directory(::openat(root, id.c_str(), kDirectoryFlags));
  if (!directory) return errno_error(path, errno);
  VTPM_TRY(UniqueFd a, make_file(directory.get(), kSlotA, path));
  VTPM_TRY(UniqueFd b, make_file(directory.get(), kSlotB, path));
  VTPM_TRY_VOID(lock(a.get(), 0ms, path));
  VTPM_TRY_VOID(sync_directory(directory.get(), path));
  VTPM_TRY_VOID(sync_directory(root, path));
  return SlotFds{std::move(a), std::move(b)};
}

void replace_all(std::string& text, std::string_view from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

}  // namespace

Result<SlotFds> SlotFiles::create(const std::string& id) const {
  const std::string path = directory(id);
  VTPM_TRY(const UniqueFd root, make_root(root_));
  if (::mkdirat(root.get(), id.c_str(), 0700) != 0) {
    if (errno == EEXIST) return Error(ErrorCode::Conflict, path + " is there already");
    return errno_error(path, errno);
  }
  auto slots = make_slots(root.get(), id, path);
  if (!slots) static_cast<void>(remove(id));  // the first error is the one that matters
  return slots;
}

Result<UniqueFd> SlotFiles::open_directory(const std::string& id) const {
  UniqueFd fd(::open(directory(id).c_str(), kDirectoryFlags));
  if (fd) return fd;
  if (errno == ENOENT) return Error(ErrorCode::Corrupt, directory(id) + " is missing");
  if (errno == ENOTDIR || errno == ELOOP)
    return Error(ErrorCode::Corrupt, directory(id) + " is not a directory");
  return errno_error(directory(id), errno);
}

Result<SlotFds> SlotFiles::open(const std::string& id, std::chrono::milliseconds patience) const {
  VTPM_TRY(const UniqueFd inside, open_directory(id));
  VTPM_TRY(UniqueFd a, open_file(inside.get(), kSlotA, directory(id)));
  VTPM_TRY(UniqueFd b, open_file(inside.get(), kSlotB, directory(id)));
  VTPM_TRY_VOID(lock(a.get(), patience, directory(id)));
  return SlotFds{std::move(a), std::move(b)};
}

Result<> SlotFiles::remove(const std::string& id) const {
  const UniqueFd root(::open(root_.c_str(), kDirectoryFlags));
  if (!root) return errno == ENOENT ? Result<>() : Result<>(errno_error(root_, errno));
  const std::string path = directory(id);
  const UniqueFd inside(::openat(root.get(), id.c_str(), kDirectoryFlags));
  if (!inside) return errno == ENOENT ? Result<>() : Result<>(errno_error(path, errno));
  VTPM_TRY_VOID(unlink_at(inside.get(), kSlotA, 0, path));
  VTPM_TRY_VOID(unlink_at(inside.get(), kSlotB, 0, path));
  VTPM_TRY_VOID(unlink_at(root.get(), id.c_str(), AT_REMOVEDIR, root_));
  return sync_directory(root.get(), root_);
}

Result<std::vector<std::string>> SlotFiles::present() const {
  std::vector<std::string> ids;
  const auto close = [](DIR* directory) { ::closedir(directory); };
  const std::unique_ptr<DIR, decltype(close)> listing(::opendir(root_.c_str()), close);
  if (!listing && errno == ENOENT) return ids;
  if (!listing) return errno_error(root_, errno);
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(listing.get());
    if (entry == nullptr && errno != 0) return errno_error(root_, errno);
    if (entry == nullptr) return ids;
    if (entry->d_name[0] != '.') ids.emplace_back(entry->d_name);
  }
}

std::vector<std::string> SlotFiles::paths(const std::string& id) const {
  return {directory(id) + "/" + kSlotA, directory(id) + "/" + kSlotB};
}

std::string SlotFiles::name_files(std::string text, const std::string& id) const {
  replace_all(text, "slot a", directory(id) + "/" + kSlotA);
  replace_all(text, "slot b", directory(id) + "/" + kSlotB);
  return text;
}

}  // namespace vtpm::supervisor
