// SPDX-License-Identifier: Apache-2.0
// The keeper and other users.
#include "tests/integration/keeper/fixture.h"
#include "tests/support/skip.h"

#include <sys/stat.h>
#include <unistd.h>

using namespace vtpm;
using namespace vtpm::test;

TEST_CASE("keeper: another user's connection is closed, whatever the socket's mode") {
  if (::geteuid() != 0) VTPM_SKIP("needs root");
  KeeperProcess keeper;
  REQUIRE(::chmod(keeper.path().c_str(), 0666) == 0);
  REQUIRE(::chmod(keeper.path().substr(0, keeper.path().rfind('/')).c_str(), 0755) == 0);
  REQUIRE(keeper.link().hold({1, ipc::HeldKind::Control, 0}, STDERR_FILENO));
  keeper.leave();
  const pid_t other = ::fork();
  REQUIRE(other >= 0);
  if (other == 0) {
    if (::setresuid(54321, 54321, 54321) != 0) ::_exit(2);
    auto link = ipc::KeeperLink::connect(keeper.path());
    if (!link) ::_exit(3);
    ::_exit(link->release(1) ? 1 : 0);
  }
  int status = -1;
  REQUIRE(::waitpid(other, &status, 0) == other);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(keeper.join().recall()->size() == 1);
}
