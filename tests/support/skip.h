// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>

namespace vtpm::test {

bool& skipped();

}  // namespace vtpm::test

// Ends the test case as skipped, with a reason; the whole program then exits with 77 unless a check failed. A
// program with tests that may be skipped holds nothing else, so that the count is right.
#define VTPM_SKIP(reason)                          \
  do {                                             \
    std::fprintf(stderr, "SKIPPED: %s\n", reason); \
    vtpm::test::skipped() = true;                  \
    return;                                        \
  } while (false)
