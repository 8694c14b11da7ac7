// SPDX-License-Identifier: Apache-2.0
#include "cli/arguments.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

struct Options {
  std::string name;
  bool durable = false;
  std::string ek;
  std::string container;
  std::string image;
  std::vector<std::string> limits;  // NAME=VALUE
};

// vtpmd knows the names.
Result<json::Value> limits_from(const std::vector<std::string>& texts) {
  json::Value limits = json::Value::object();
  for (const std::string& text : texts) {
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      return Error(ErrorCode::Malformed,
                   "--limit: NAME=VALUE is expected, as in spaces=16, not '" + text + "'");
    const std::string name = text.substr(0, equals);
    VTPM_TRY(const std::uint64_t value, number_from("--limit " + name, text.substr(equals + 1)));
    if (!limits.emplace(name, value).second)
      return Error(ErrorCode::Malformed, "--limit: " + name + " is there twice");
  }
  return limits;
}

Result<int> create(const Context& context, const Options& options) {
  json::Value body = json::Value::object();
  if (!options.name.empty()) body["name"] = options.name;
  if (options.durable) body["durable"] = true;
  if (!options.ek.empty()) body["ek"] = options.ek;
  if (!options.container.empty()) body["container"] = options.container;
  if (!options.image.empty()) body["image"] = options.image;
  if (!options.limits.empty()) {
    VTPM_TRY(body["limits"], limits_from(options.limits));
  }
  VTPM_TRY(const auto answer, context.client().call("POST", "/v1/instances", json::dump(body)));
  VTPM_TRY(const auto instance, parse_answer(answer));
  VTPM_TRY_VOID(context.json ? print_json(instance) : print(shown(instance, "id") + "\n"));
  return kDone;
}

}  // namespace

void add_create(CLI::App& app, Context& context) {
  const auto options = std::make_shared<Options>();
  auto* verb = add_verb(app, context, "create", "Make a TPM; prints its id",
                        [&context, options] { return create(context, *options); });
  verb->add_option("--name", options->name, "A name for it, besides its id");
  verb->add_flag("--durable", options->durable,
                 "Keep it over restarts. One of that name that is stopped is started again");
  verb->add_option("--ek", options->ek, "Kind of its endorsement key (ecc-p256)");
  verb->add_option("--container", options->container,
                   "The id of the container that it is for, to be measured");
  verb->add_option("--image", options->image,
                   "The digest of that container's image, to be measured: sha256:HEX");
  verb->add_option("--limit", options->limits,
                   "NAME=VALUE: what its tenants may use, instead of vtpmd's default (more than once)")
      ->allow_extra_args(false);
}

}  // namespace vtpm::cli
