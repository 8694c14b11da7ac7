// SPDX-License-Identifier: Apache-2.0
// Engines of an ordinary user's daemon: to that user, /proc/PID is the kernel's (owner root) when the process
// is not dumpable. (Of a root's process it always is; so this is not seen in jail_test.cpp.)
#include "tests/integration/supervisor/json_call.h"

#include <sys/stat.h>

using namespace vtpm::test;

namespace {

uid_t owner_of_environment(pid_t pid) {
  struct stat status {};
  REQUIRE(::stat(("/proc/" + std::to_string(pid) + "/environ").c_str(), &status) == 0);
  return status.st_uid;
}

}  // namespace

TEST_CASE("jail: an engine is not dumpable") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon);
  const auto engine = call(*daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
  REQUIRE(daemon_uid() != 0);
  CHECK(owner_of_environment(engine) == 0);
  // A process of the same user that says nothing about it is: what is seen above is the jail's doing.
  CHECK(as_user(daemon_uid(), [] {
          ::execl("/bin/sh", "sh", "-c", "test -O /proc/self/environ", nullptr);
          return 127;
        }) == 0);
}
