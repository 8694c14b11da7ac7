// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

struct Options {
  std::string id;
  std::string nonce;
  bool fresh = false;
  std::string output;
};

Result<int> attest(const Context& context, const Options& options) {
  VTPM_TRY(const auto nonce, nonce_from(options.nonce));
  const json::Value body = {{"nonce", to_hex(nonce)}, {"fresh", options.fresh}};
  VTPM_TRY(const auto evidence,
           context.client().call("POST", instance_target(options.id, "/evidence"), json::dump(body)));
  VTPM_TRY_VOID(write_document(options.output, evidence));
  return kDone;
}

}  // namespace

void add_attest(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "attest", "Evidence of a TPM, to be verified elsewhere",
                        [&context, options] { return attest(context, *options); });
  verb->add_option("id", options->id, "The TPM's id, the beginning of it, or its name")->required();
  verb->add_option("--nonce", options->nonce, "The verifier's nonce: 8 to 64 bytes, hexadecimal")->required();
  verb->add_flag("--fresh", options->fresh, "Have the hardware TPM sign this nonce, too");
  verb->add_option("-o,--output", options->output, "File for the evidence (default: standard output)");
}

}  // namespace vtpm::cli
