// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/policy_file.h"
#include "cli/verbs.h"

#include <vtpm/evidence/verifier.h>

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>

namespace vtpm::cli {
namespace {

constexpr std::size_t kMaxPolicy = std::size_t{1} * 1024 * 1024;
constexpr const char* kSoftware =
    "vtpmctl: policy: warning: the anchor of this evidence is software, not hardware: the policy allows it "
    "(allow_embedded_anchor), so it proves nothing about the machine\n";

constexpr const char* kNoPcrs =
    "vtpmctl: policy: warning: none of the anchor's PCRs 0-7 is in this evidence: the policy does not pin "
    "how the "
    "machine booted\n";

// What a file holds is not wrong usage.
Error in_file(const std::string& path, const Error& error) {
  return Error(error.kind() == ErrorCode::Malformed ? ErrorCode::Configuration : error.kind(),
               path + ": " + error.context);
}

Result<int> from_evidence(const std::string& path) {
  VTPM_TRY(const auto text, read_input(path, evidence::kMaxEvidenceSize));
  const auto evidence = evidence::parse_evidence(text);
  if (!evidence) return in_file(path, evidence.error());
  const auto policy = evidence::policy_from_evidence(*evidence);
  if (!policy) return in_file(path, policy.error());
  // A policy is trusted later: it is made from evidence that holds, as of the time that it speaks of.
  const auto verdict = evidence::verify(text, *policy, {evidence->nonce, evidence->epoch.time});
  if (!verdict.verified()) {
    for (const auto& reason : verdict.reasons())
      std::cerr << "vtpmctl: policy: " << shown(json::Value(reason)) << "\n";
    return Error(ErrorCode::NotVerified, path + ": the evidence does not hold, no policy is made from it");
  }
  if (policy->anchor_pcrs.empty()) std::cerr << kNoPcrs;
  if (evidence->anchor_kind == log::AnchorKind::Embedded) std::cerr << kSoftware;
  VTPM_TRY(const auto document, json::parse(evidence::to_json(*policy), kMaxPolicy));
  VTPM_TRY_VOID(print_json(document));
  return kDone;
}

Result<int> check(const Context& context, const std::string& path) {
  VTPM_TRY(const auto policy, read_policy(path));
  VTPM_TRY(const auto document, json::parse(evidence::to_json(policy), kMaxPolicy));
  if (policy.allow_embedded_anchor)
    std::cerr << "vtpmctl: policy: warning: it accepts software anchors (allow_embedded_anchor)\n";
  VTPM_TRY_VOID(context.json ? print_json(document) : print("ok\n"));
  return kDone;
}

}  // namespace

Result<evidence::Policy> read_policy(const std::string& path) {
  VTPM_TRY(const auto text, read_input(path, kMaxPolicy));
  auto policy = evidence::parse_policy(text);
  if (!policy) return in_file(path, policy.error());
  return policy;
}

void add_policy(CLI::App& app, Context& context) {
  CLI::App* policy = app.add_subcommand("policy", "What a verifier demands");
  policy->require_subcommand(1)->fallthrough();
  const auto evidence = std::make_shared<std::string>();
  auto* make =
      add_verb(*policy, context, "from-evidence", "Print a policy that pins the machine of this evidence",
               [evidence] { return from_evidence(*evidence); });
  make->add_option("evidence", *evidence, "The evidence's file, or - for standard input")->required();
  const auto file = std::make_shared<std::string>();
  auto* verify = add_verb(*policy, context, "check", "Say whether a policy's file is well formed",
                          [&context, file] { return check(context, *file); });
  verify->add_option("policy", *file, "The policy's file, or - for standard input")->required();
}

}  // namespace vtpm::cli
