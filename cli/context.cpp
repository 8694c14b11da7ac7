// SPDX-License-Identifier: Apache-2.0
#include "cli/context.h"

#include <CLI/CLI.hpp>

namespace vtpm::cli {

CLI::App* add_verb(CLI::App& parent, Context& context, const std::string& name,
                   const std::string& description, std::function<Result<int>()> run) {
  CLI::App* verb = parent.add_subcommand(name, description);
  verb->fallthrough();
  const bool nested = parent.get_parent() != nullptr;
  verb->callback(
      [&context, verb, full = nested ? parent.get_name() + " " + name : name, run = std::move(run)] {
        if (!verb->get_subcommands().empty()) return;  // that one was meant
        context.verb = full;
        context.run = run;
      });
  return verb;
}

std::string url_encode(std::string_view text) {
  constexpr std::string_view kUnreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (kUnreserved.find(c) != std::string_view::npos) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += '%';
    out += kDigits[byte >> 4];
    out += kDigits[byte & 0xf];
  }
  return out;
}

std::string instance_target(std::string_view id, std::string_view rest) {
  return "/v1/instances/" + url_encode(id) + std::string(rest);
}

}  // namespace vtpm::cli
