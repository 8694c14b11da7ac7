// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

namespace vtpm::cli {
namespace {

Result<int> events(const Context& context) {
  Result<> printed;
  VTPM_TRY_VOID(context.client().stream("/v1/events", [&](std::string_view event) {
    printed = print(std::string(event) + "\n");
    return printed.has_value();
  }));
  VTPM_TRY_VOID(printed);
  return kDone;
}

}  // namespace

void add_events(CLI::App& app, Context& context) {
  add_verb(app, context, "events", "What happens, one JSON document a line, until interrupted",
           [&context] { return events(context); });
}

}  // namespace vtpm::cli
