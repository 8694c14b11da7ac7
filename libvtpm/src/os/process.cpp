// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>

namespace vtpm {
namespace {

constexpr std::size_t kMaxProcFile = 65536;

// The first number after `key` at the start of a line of a /proc file.
std::optional<long> field(std::string_view text, std::string_view key) {
  auto at = text.starts_with(key) ? 0 : text.find("\n" + std::string(key));
  if (at == std::string_view::npos) return std::nullopt;
  at = text.find_first_of("-0123456789", at + key.size());
  if (at == std::string_view::npos) return std::nullopt;
  long value = 0;
  const auto end = text.data() + text.size();
  if (std::from_chars(text.data() + at, end, value).ec != std::errc()) return std::nullopt;
  return value;
}

}  // namespace

Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd) return fd;
  if (errno == ESRCH) return Error(ErrorCode::NotFound, "no process " + std::to_string(pid));
  return errno_error("pidfd_open", errno);
}

Result<pid_t> pid_of_pidfd(int pidfd) {
  VTPM_TRY(const Bytes info, read_file("/proc/self/fdinfo/" + std::to_string(pidfd), kMaxProcFile));
  const auto pid = field(as_text(info), "Pid:");
  if (!pid) return Error(ErrorCode::Malformed, "not a pidfd");
  if (*pid <= 0) return Error(ErrorCode::NotFound, "the process has ended or is in another pid namespace");
  return static_cast<pid_t>(*pid);
}

Result<uid_t> uid_of_pidfd(int pidfd) {
  VTPM_TRY(const pid_t pid, pid_of_pidfd(pidfd));
  VTPM_TRY(const Bytes status, read_file("/proc/" + std::to_string(pid) + "/status", kMaxProcFile));
  const auto uid = field(as_text(status), "Uid:");
  // The pid may have been reused between the two reads: then the pidfd says that its process has ended.
  if (!uid || has_ended(pidfd)) return Error(ErrorCode::NotFound, "the process has ended");
  return static_cast<uid_t>(*uid);
}

bool has_ended(int pidfd) noexcept {
  pollfd p{pidfd, POLLIN, 0};
  return ::poll(&p, 1, 0) > 0;
}

Result<> signal_process(int pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) == 0 || errno == ESRCH) return {};
  return errno_error("pidfd_send_signal", errno);
}

}  // namespace vtpm
