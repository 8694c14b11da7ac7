// SPDX-License-Identifier: Apache-2.0
#include "container-hooks/report.h"

#include <vtpm/os/file.h>
#include <vtpm/os/unique_fd.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <syslog.h>
#include <unistd.h>

namespace vtpm::hook {
namespace {

bool is_dev_null(int fd) noexcept {
  struct stat s {};
  return ::fstat(fd, &s) != 0 || (S_ISCHR(s.st_mode) && s.st_rdev == makedev(1, 3));
}

// Only what can take text at once, or a file: opened anew through /proc, so that our flags are our own.
bool takes_text(int fd) noexcept {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return false;
  return S_ISREG(s.st_mode) || S_ISFIFO(s.st_mode) || ::isatty(fd) == 1;
}

void tell_runtime(const std::string& text) {
  const std::string path = "/proc/" + std::to_string(::getppid()) + "/fd/2";
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (fd && takes_text(fd.get())) static_cast<void>(write_all(fd.get(), as_bytes(text)));
}

}  // namespace

void report(const std::string& text) {
  if (!is_dev_null(STDERR_FILENO)) {
    static_cast<void>(write_all(STDERR_FILENO, as_bytes(text)));
    return;
  }
  tell_runtime(text);
  ::openlog("vtpm-hook", LOG_PID, LOG_DAEMON);
  ::syslog(LOG_ERR, "%s", text.c_str());
}

}  // namespace vtpm::hook
