// SPDX-License-Identifier: Apache-2.0
// vtpmctl: the operator's and the verifier's tool.
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <csignal>
#include <cstdlib>
#include <iostream>

namespace {

using namespace vtpm;
using namespace vtpm::cli;

constexpr const char* kFooter =
    "Exit status: 0 done, 1 refused or not verified, 2 usage, 3 vtpmd cannot be reached, 4 another failure.";

constexpr void (*kVerbs[])(CLI::App&, Context&) = {
    add_create, add_list,   add_inspect, add_attach, add_detach, add_destroy, add_attest, add_verify,
    add_enroll, add_policy, add_measure, add_log,    add_anchor, add_events,  add_doctor, add_oci,
};

int perform(const Context& context) {
  const auto status = context.run();
  if (status) return *status;
  print_error(context.verb, status.error());
  return exit_status(status.error().kind());
}

std::string usage_message(const CLI::App*, const CLI::Error& error) {
  return std::string("vtpmctl: ") + error.what() +
         "\n  `vtpmctl --help` and `vtpmctl VERB --help` show what is accepted\n";
}

// CLI11 throws for wrong usage, and for --help.
int parse_and_perform(CLI::App& app, const Context& context, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kDone : kUsage;
  }
  return perform(context);
}

}  // namespace

int main(int argc, char** argv) {
  // tss2-mu explains hostile structures on standard error; the verdict does so.
  ::setenv("TSS2_LOG", "all+none", 0);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(2), reported like any other
  Context context;
  CLI::App app("Private TPMs for containers, anchored in the host's hardware TPM", "vtpmctl");
  app.footer(kFooter);
  app.failure_message(usage_message);
  app.set_version_flag("--version", VTPM_VERSION);
  app.add_option("--runtime-dir", context.runtime_dir, "Where vtpmd's sockets are")
      ->envname("VTPM_RUNTIME_DIR")
      ->capture_default_str();
  app.add_flag("--json", context.json, "Print JSON, for programs");
  app.require_subcommand(1);
  for (const auto add : kVerbs)
    add(app, context);
  return parse_and_perform(app, context, argc, argv);
}
