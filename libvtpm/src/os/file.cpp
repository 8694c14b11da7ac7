// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/file.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

namespace vtpm {

Result<Bytes> read_all(int fd, std::size_t limit) {
  Bytes bytes;
  std::array<std::uint8_t, 16384> buffer;
  const auto wipe = [](auto* used) { ::explicit_bzero(used->data(), used->size()); };  // it may be a key
  const std::unique_ptr<decltype(buffer), decltype(wipe)> wiped(&buffer, wipe);
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("read", errno);
    if (n == 0) return bytes;
    if (bytes.size() + static_cast<std::size_t>(n) > limit)
      return Error(ErrorCode::Malformed, "larger than " + std::to_string(limit) + " bytes");
    put(bytes, BytesView(buffer.data(), static_cast<std::size_t>(n)));
  }
}

Result<Bytes> read_file(const std::string& path, std::size_t limit) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return errno_error(path, errno);
  auto bytes = read_all(fd.get(), limit);
  if (!bytes) return bytes.error().within(path);
  return bytes;
}

Result<> write_all(int fd, BytesView bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("write", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

namespace {

Result<> write_temporary(const std::string& path, BytesView bytes, mode_t mode) {
  // A file that an earlier crash, or somebody else, left there is not written into: it may have other names,
  // owners or readers.
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error(path, errno);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd) return errno_error(path, errno);
  if (::fchmod(fd.get(), mode) != 0) return errno_error(path, errno);
  if (auto written = write_all(fd.get(), bytes); !written) return written.error().within(path);
  if (::fdatasync(fd.get()) != 0) return errno_error(path, errno);
  return {};
}

Result<> sync_directory(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0) return errno_error(directory, errno);
  return {};
}

}  // namespace

Result<> replace_file(const std::string& path, BytesView bytes, mode_t mode) {
  const std::string temporary = path + ".new";
  if (auto written = write_temporary(temporary, bytes, mode); !written) {
    ::unlink(temporary.c_str());
    return written;
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    const int renaming = errno;
    ::unlink(temporary.c_str());
    return errno_error(path, renaming);
  }
  return sync_directory(path);
}

}  // namespace vtpm
