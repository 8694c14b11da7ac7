// SPDX-License-Identifier: Apache-2.0
// A policy file. The input is the document; what is accepted is written and read as the same.
#include <vtpm/evidence/policy.h>

#include <cstdlib>

using namespace vtpm;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto policy = evidence::parse_policy(as_text({bytes, size}));
  if (!policy) return 0;
  if (policy->anchor_aks.empty() && policy->enrolment_authorities.empty()) std::abort();
  const std::string json = evidence::to_json(*policy);
  const auto again = evidence::parse_policy(json);
  if (!again || evidence::to_json(*again) != json) std::abort();
  return 0;
}
