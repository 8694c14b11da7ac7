// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/clock.h"
#include "cli/output.h"
#include "cli/policy_file.h"
#include "cli/verbs.h"

#include <vtpm/evidence/verifier.h>

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

// More than evidence may have: the verdict, not the reading, says that it is too long.
constexpr std::size_t kMaxInput = 4 * evidence::kMaxEvidenceSize;

struct Options {
  std::string evidence;
  std::string policy;
  std::string nonce;
};

std::string anchor_line(const evidence::Verdict& verdict) {
  if (!verdict.anchor) return "anchor: unknown\n";
  return *verdict.anchor == log::AnchorKind::Tpm ? "anchor: TPM\n" : "anchor: software, not hardware\n";
}

std::string report(const evidence::Verdict& verdict) {
  std::size_t width = 0;
  for (const auto& check : verdict.checks)
    width = std::max(width, check.name.size());
  std::string out;
  for (const auto& check : verdict.checks)
    out += (check.passed ? "ok    " : "FAIL  ") + check.name +
           std::string(width - check.name.size() + 2, ' ') + shown(json::Value(check.detail)) + "\n";
  out += anchor_line(verdict);
  if (verdict.verified()) return out + "verdict: VERIFIED\n";
  out += "verdict: REFUSED\n";
  for (const auto& reason : verdict.reasons())
    out += "  " + shown(json::Value(reason)) + "\n";
  return out;
}

Result<int> verify(const Context& context, const Options& options) {
  VTPM_TRY(auto nonce, nonce_from(options.nonce));
  VTPM_TRY(const auto policy, read_policy(options.policy));
  VTPM_TRY(const auto text, read_input(options.evidence, kMaxInput));
  const auto verdict = evidence::verify(text, policy, {std::move(nonce), now_ms()});
  if (context.json) {
    VTPM_TRY(const auto document, json::parse(evidence::to_json(verdict), kMaxInput));
    VTPM_TRY_VOID(print_json(document));
  } else {
    VTPM_TRY_VOID(print(report(verdict)));
  }
  return verdict.verified() ? kDone : kRefused;
}

}  // namespace

void add_verify(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "verify", "Check evidence offline: needs no vtpmd, TPM or root",
                        [&context, options] { return verify(context, *options); });
  verb->add_option("evidence", options->evidence, "The evidence's file, or - for standard input")->required();
  verb->add_option("--policy", options->policy, "File of what is demanded (see `policy from-evidence`)")
      ->required();
  verb->add_option("--nonce", options->nonce, "The nonce that you sent, hexadecimal")->required();
}

}  // namespace vtpm::cli
