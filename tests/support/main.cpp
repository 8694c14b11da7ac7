// SPDX-License-Identifier: Apache-2.0
// Catch2's main for every test program, with what CTest needs: exit status 77 when all that ran was skipped.
#define CATCH_CONFIG_RUNNER
#include "tests/support/skip.h"

#include <catch2/catch.hpp>

namespace vtpm::test {
bool& skipped() {
  static bool value = false;
  return value;
}
}  // namespace vtpm::test

int main(int argc, char** argv) {
  const int status = Catch::Session().run(argc, argv);
  return status == 0 && vtpm::test::skipped() ? 77 : status;
}
