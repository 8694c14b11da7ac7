// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

namespace vtpm::cli {
namespace {

Result<int> anchor(const Context& context) {
  VTPM_TRY(const auto body, context.client().call("GET", "/v1/anchor"));
  VTPM_TRY(const auto document, parse_answer(body));
  VTPM_TRY_VOID(context.json ? print_json(document) : print_members(document));
  return kDone;
}

}  // namespace

void add_anchor(CLI::App& app, Context& context) {
  add_verb(app, context, "anchor", "The TPM that signs for all: its kind, key and last quote",
           [&context] { return anchor(context); });
}

}  // namespace vtpm::cli
