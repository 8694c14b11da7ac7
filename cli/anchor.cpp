// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>

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

}  // namespace

void add_anchor(CLI::App& app, Context& context) {
  add_verb(app, context, "anchor", "The TPM that signs for all: its kind, key and last quote",
           [&context] { return anchor(context); });
}

}  // namespace vtpm::cli
