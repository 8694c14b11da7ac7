// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/os/encoding.h>

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

struct Options {
  std::string id;
  unsigned pcr = 18;
  std::string digest;
  std::string description;
};

Result<int> measure(const Context& context, const Options& options) {
  VTPM_TRY(const auto digest, sha256_from(options.digest));
  const json::Value body = {
      {"pcr", options.pcr}, {"digest", to_hex(digest)}, {"description", options.description}};
  VTPM_TRY(const auto answer,
           context.client().call("POST", instance_target(options.id, "/measurements"), json::dump(body)));
  if (context.json && !answer.empty()) {
    VTPM_TRY(const auto document, parse_answer(answer));
    VTPM_TRY_VOID(print_json(document));
  }
  return kDone;
}

}  // namespace

void add_measure(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb =
      add_verb(app, context, "measure", "Record a statement about a container in its TPM and event log",
               [&context, options] { return measure(context, *options); });
  verb->add_option("id", options->id, "The TPM's id, the beginning of it, or its name")->required();
  verb->add_option("--pcr", options->pcr, "The PCR, out of the tenant's reach (18)")->capture_default_str();
  verb->add_option("--digest", options->digest, "SHA-256 digest of what is stated, hexadecimal")->required();
  verb->add_option("--description", options->description, "What it is, for the event log")->required();
}

}  // namespace vtpm::cli
