// SPDX-License-Identifier: Apache-2.0
// Evidence as a verifier gets it from a stranger. The input is the document.
#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>

#include <cstdlib>

using namespace vtpm;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  return ::setenv("TSS2_LOG", "all+none", 1);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view json = as_text({bytes, size});
  static const evidence::Policy policy = [] {
    evidence::Policy strict;
    strict.anchor_aks.insert(Bytes(34, 1));
    strict.allow_embedded_anchor = true;
    return strict;
  }();
  const auto verdict = evidence::verify(json, policy, {Bytes(32, 0x5a), 1'760'000'000'000});
  // The policy accepts one Name, which no key has.
  if (verdict.verified() || verdict.checks.empty()) std::abort();
  (void)evidence::to_json(verdict);
  if (const auto parsed = evidence::parse_evidence(json)) {
    const std::string once = evidence::to_json(*parsed);
    const auto again = evidence::parse_evidence(once);
    if (!again || evidence::to_json(*again) != once) std::abort();
    (void)evidence::policy_from_evidence(*parsed);
  }
  return 0;
}
