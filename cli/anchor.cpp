// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/evidence/enrolment.h>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace vtpm::cli {
namespace {

std::string last_epoch(const json::Value& document) {
  const auto epoch = document.find("epoch");
  if (epoch == document.end() || !epoch->is_object()) return "-";
  return shown_time(*epoch, "time") + " UTC, over a log of " + shown(*epoch, "tree_size") + " entries and " +
         shown(*epoch, "nonces") + " nonces; the quote took " + shown(*epoch, "quote_ms") + " ms";
}

std::string quoted_pcrs(const json::Value& document) {
  std::vector<int> indices;
  if (const auto pcrs = document.find("pcrs"); pcrs != document.end() && pcrs->is_object())
    for (const auto& [index, value] : pcrs->items())
      indices.push_back(std::atoi(index.c_str()));
  std::sort(indices.begin(), indices.end());
  std::string text;
  for (const int index : indices)
    text += (text.empty() ? "" : " ") + std::to_string(index);
  return text.empty() ? "-" : text;
}

// What an operator asks first; --json has the keys and values.
std::vector<Labelled> describe(const json::Value& document) {
  const std::string reason = shown(document, "reason");
  return {{"anchor", shown(document, "description") + ", firmware " + shown(document, "firmware_version")},
          {"state", shown(document, "state") + (reason == "-" ? "" : ": " + reason)},
          {"attestation key", shown(document, "ak_name")},
          {"EK certificate", shown(document, "ek_certificate") == "-" ? "none" : "yes"},
          {"quoted PCRs", quoted_pcrs(document)},
          {"quotes", shown(document, "quotes") + " signed, " + shown(document, "failures") + " failed"},
          {"last epoch", last_epoch(document)}};
}

Result<int> anchor(const Context& context) {
  VTPM_TRY(const auto body, context.client().call("GET", "/v1/anchor"));
  VTPM_TRY(const auto document, parse_answer(body));
  if (!document.is_object()) return Error(ErrorCode::Malformed, "vtpmd's answer is not an object");
  VTPM_TRY_VOID(context.json ? print_json(document) : print_labelled(describe(document)));
  return kDone;
}

struct Enrol {
  std::string challenge;
  std::string enrolment;
  std::string output;
};

// Posts the file's document; the answer is one, too.
Result<std::string> post_file(const Context& context, const std::string& target, const std::string& path) {
  VTPM_TRY(const auto text, read_input(path, evidence::kMaxEnrolmentDocument));
  return context.client().call("POST", target, text);
}

Result<int> keep_enrolment(const Context& context, const Enrol& options) {
  VTPM_TRY(const auto body, post_file(context, "/v1/anchor/enrolments", options.enrolment));
  VTPM_TRY(const auto document, parse_answer(body));
  VTPM_TRY_VOID(context.json ? print_json(document)
                             : print("kept: this host shows that authority " + shown(document, "authority") +
                                     " has enrolled it\n"));
  return kDone;
}

Result<int> enroll(const Context& context, const Enrol& options) {
  if (!options.enrolment.empty()) return keep_enrolment(context, options);
  const bool answers = !options.challenge.empty();
  VTPM_TRY(const auto document, answers ? post_file(context, "/v1/anchor/enrolment-answer", options.challenge)
                                        : context.client().call("GET", "/v1/anchor/enrolment-request"));
  VTPM_TRY_VOID(write_document(options.output, document));
  return kDone;
}

void add_enroll_of(CLI::App& anchor, Context& context) {
  const auto options = std::make_shared<Enrol>();
  auto* verb =
      add_verb(anchor, context, "enroll", "The host's half of an enrolment: a request for `vtpmctl enroll`",
               [&context, options] { return enroll(context, *options); });
  auto* challenge = verb->add_option("--challenge", options->challenge, "Answer a verifier's challenge");
  verb->add_option("--enrolment", options->enrolment,
                   "Keep an enrolment, and show it in evidence from now on")
      ->excludes(challenge);
  verb->add_option("-o,--output", options->output, "File for the document (default: standard output)");
}

}  // namespace

void add_anchor(CLI::App& app, Context& context) {
  const auto show = [&context] { return anchor(context); };
  auto* verb =
      add_verb(app, context, "anchor", "The TPM that signs for all: its kind, key and last quote", show);
  verb->require_subcommand(0, 1);
  add_verb(*verb, context, "status", "The same", show);
  add_enroll_of(*verb, context);
}

}  // namespace vtpm::cli
