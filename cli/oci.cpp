// SPDX-License-Identifier: Apache-2.0
#include "cli/oci_documents.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <CLI/CLI.hpp>

#include <memory>

namespace vtpm::cli {
namespace {

// The document with the hook's path, wherever it stands, replaced.
Result<int> show(std::string_view document, const std::string& hook) {
  if (hook.empty() || hook.front() != '/')
    return Error(ErrorCode::Malformed, "--hook must be an absolute path: the runtimes demand it");
  const std::string packaged = json::dump("/usr/libexec/vtpm/vtpm-hook");
  const std::string wanted = json::dump(hook);
  std::string text(document);
  for (auto at = text.find(packaged); at != std::string::npos; at = text.find(packaged, at + wanted.size()))
    text.replace(at, packaged.size(), wanted);
  VTPM_TRY_VOID(print(text));
  return kDone;
}

}  // namespace

void add_oci(CLI::App& app, Context& context) {
  CLI::App* oci = app.add_subcommand("oci", "Files that connect container engines with vtpm-hook");
  oci->require_subcommand(1)->fallthrough();
  const auto hook = std::make_shared<std::string>(kInstalledHook);
  const auto add = [&](const std::string& name, const std::string& description, std::string_view document) {
    add_verb(*oci, context, name, description, [document, hook] { return show(document, *hook); })
        ->add_option("--hook", *hook, "Where vtpm-hook is")
        ->capture_default_str();
  };
  add("hooks-json", "hooks.d JSON of podman and CRI-O: a TPM for containers annotated dev.vtpm.enable=true",
      kHooksDocument);
  add("cdi", "CDI specification: a TPM for containers run with --device vtpm.dev/tpm=auto", kCdiDocument);
}

}  // namespace vtpm::cli
