// SPDX-License-Identifier: Apache-2.0
// Another project's use of the installed library: a verdict on something that is not evidence.
#include <vtpm/evidence/verifier.h>

int main() {
  const auto verdict = vtpm::evidence::verify("not evidence", {}, {});
  return verdict.verified() || verdict.checks.empty() || verdict.checks.front().name != "evidence.format";
}
