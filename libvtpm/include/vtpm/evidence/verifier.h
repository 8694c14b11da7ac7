// SPDX-License-Identifier: Apache-2.0
// The offline verifier: no daemon, no TPM, no root.
#pragma once

#include <vtpm/evidence/policy.h>

#include <string>
#include <vector>

namespace vtpm::evidence {

// One link of the chain. `name` is stable ("anchor.signature", "log.instance-create", ...; FORMATS.md lists
// them).
struct Check {
  std::string name;
  bool passed;
  std::string detail;  // what was found; for a failed check, the reason
};

struct Verdict {
  std::vector<Check> checks;  // in the order of the chain, hardware first
  // Known when the evidence could be read.
  std::optional<AnchorKind> anchor;
  std::optional<log::Launch> launch;
  bool verified() const noexcept;            // there are checks, and all passed
  std::vector<std::string> reasons() const;  // "name: detail" of the failed ones
};

struct Expectation {
  Bytes nonce;         // what the verifier sent
  std::uint64_t time;  // now, ms since 1970-01-01T00:00:00Z
};

// Checks the whole chain. Never fails as a call: malformed evidence is a verdict with the failed check
// "evidence.format". A check whose input could not be read fails too: "not checked:" and the check that has
// the reason.
Verdict verify(std::string_view evidence_json, const Policy& policy, const Expectation& expected);

// {"verdict":"verified"|"refused", "anchor":"tpm"|"software, not hardware", "checks":[...], "launch":{...}}
std::string to_json(const Verdict& verdict);

}  // namespace vtpm::evidence
