// SPDX-License-Identifier: Apache-2.0
// What vtpmd says where there is no hardware TPM.
#include "tests/integration/supervisor/daemon.h"
#include "tests/support/catch_result.h"
#include "tests/support/skip.h"

#include <sys/wait.h>

#include <filesystem>

using namespace vtpm::test;

TEST_CASE("vtpmd: without a TPM and without --anchor it names --anchor embedded") {
  if (std::filesystem::exists("/dev/tpmrm0")) VTPM_SKIP("this host has a TPM");
  const Place place;
  const auto daemon = Daemon::start(place, "");
  CHECK_FALSE(daemon->ready());
  const int status = daemon->stop(0);
  CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 4));
  CHECK(place.log().find("--anchor embedded") != std::string::npos);
}
