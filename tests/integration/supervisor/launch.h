// SPDX-License-Identifier: Apache-2.0
// Messages of attach.sock with real descriptors, as vtpm-hook and vtpmctl send them.
#pragma once

#include "tests/integration/supervisor/daemon.h"
#include "tests/support/catch_result.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

namespace vtpm::test {

using control::NodeKind;

// A process that stands for a container's init; ends with its owner.
class Container {
 public:
  Container() : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::pause();
      ::_exit(0);
    }
    auto pidfd = open_pidfd(pid_);
    REQUIRE(pidfd);
    pidfd_ = std::move(*pidfd);
  }
  ~Container() { end(); }
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  int pidfd() const { return pidfd_.get(); }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
};

inline UniqueFd config_file(std::string_view text = "{}") {
  UniqueFd fd(::memfd_create("config.json", MFD_CLOEXEC));
  REQUIRE(write_all(fd.get(), as_bytes(text)));
  return fd;
}

inline UniqueFd open_device(const char* path) {
  return UniqueFd(::open(path, O_RDWR | O_CLOEXEC));
}

inline bool is_root_with_fuse() {
  return ::geteuid() == 0 && open_device("/dev/fuse");
}

inline control::LaunchRequest launch_of(const std::string& container) {
  control::LaunchRequest request;
  request.container = container;
  request.nodes = {NodeKind::Managed};
  return request;
}

inline Result<std::string> send(const Place& place, const control::AttachMessage& message,
                                const std::vector<int>& fds) {
  return control::request(place.runtime(), message, fds, after(std::chrono::seconds(20)));
}

}  // namespace vtpm::test
