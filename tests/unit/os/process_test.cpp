// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <vtpm/os/process.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace vtpm;

namespace {

// A child that waits for a signal; killed and reaped at the end of the test.
class Child {
 public:
  Child() : pid_(::fork()) {
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;)
        ::pause();
    }
    if (pid_ < 0) std::abort();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    ::kill(pid_, SIGKILL);
    reap();
  }

  pid_t pid() const noexcept { return pid_; }
  int reap() {
    if (!reaped_) ::waitpid(pid_, &status_, 0);
    reaped_ = true;
    return status_;
  }

 private:
  pid_t pid_;
  int status_ = 0;
  bool reaped_ = false;
};

void wait_for_end(int pidfd) {
  pollfd p{pidfd, POLLIN, 0};
  REQUIRE(::poll(&p, 1, 60'000) == 1);
}

}  // namespace

TEST_CASE("process: a pidfd names its process and its user") {
  const Child child;
  const auto pidfd = open_pidfd(child.pid());
  REQUIRE(pidfd);
  CHECK((::fcntl(pidfd->get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(pid_of_pidfd(pidfd->get()).value() == child.pid());
  CHECK(uid_of_pidfd(pidfd->get()).value() == ::getuid());
  CHECK_FALSE(has_ended(pidfd->get()));
}

TEST_CASE("process: a process that was killed has ended, and its reaped pidfd names nobody") {
  Child child;
  const auto pidfd = open_pidfd(child.pid());
  REQUIRE(pidfd);
  REQUIRE(signal_process(pidfd->get(), SIGKILL));
  wait_for_end(pidfd->get());
  CHECK(has_ended(pidfd->get()));
  CHECK(uid_of_pidfd(pidfd->get()).error().kind() == ErrorCode::NotFound);
  CHECK(WTERMSIG(child.reap()) == SIGKILL);
  CHECK(has_ended(pidfd->get()));
  CHECK(pid_of_pidfd(pidfd->get()).error().kind() == ErrorCode::NotFound);
  CHECK(signal_process(pidfd->get(), SIGTERM));  // no error
}

TEST_CASE("process: what is no pidfd is malformed, and a pid of nobody is not found") {
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  CHECK(pid_of_pidfd(file.get()).error().kind() == ErrorCode::Malformed);
  CHECK(uid_of_pidfd(file.get()).error().kind() == ErrorCode::Malformed);
  CHECK_FALSE(signal_process(file.get(), SIGTERM));
  CHECK_FALSE(open_pidfd(-1));
  CHECK(open_pidfd(0x7ffffff0).error().kind() == ErrorCode::NotFound);  // above any kernel's pid_max
}
