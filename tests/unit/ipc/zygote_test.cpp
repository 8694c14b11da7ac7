// SPDX-License-Identifier: Apache-2.0
// A hostile zygote: who waits for it waits until his time, whatever it sends.
#include "daemon/ipc/engine_link.h"
#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>
#include <poll.h>

using namespace vtpm;
using namespace vtpm::ipc;

TEST_CASE("zygote: one that says much is not listened to beyond the time for an exit") {
  const auto zygote = Zygote::start(std::string(VTPM_BIN_DIR) + "/talkative_zygote", STDERR_FILENO);
  REQUIRE(zygote);
  pollfd ended{(*zygote)->pidfd(), POLLIN, 0};
  REQUIRE(::poll(&ended, 1, 30000) == 1);  // it has said all
  CHECK_FALSE((*zygote)->exit_of(77, std::chrono::milliseconds(0)));
  CHECK((*zygote)->exit_of(77, std::chrono::seconds(30)));
}
