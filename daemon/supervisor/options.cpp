// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/options.h"

#include "daemon/supervisor/limits.h"
#include "json/strict.h"

#include <vtpm/os/file.h>
#include <vtpm/tpm/constants.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <unistd.h>

#include <array>
#include <climits>
#include <vector>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxConfigFile = 65536;

Result<> set_text(json::Reader& reader, std::string_view name, std::string& value) {
  VTPM_TRY(auto text, reader.optional_string(name));
  if (text) value = std::move(*text);
  return {};
}

Result<> set_pcrs(json::Reader& reader, const char* member, bool none_is_right, std::set<unsigned>& pcrs) {
  if (!reader.has(member)) return {};
  VTPM_TRY(const auto items, reader.array(member, tpm::kPcrCount));
  pcrs.clear();
  for (const auto& item : items) {
    VTPM_TRY(const std::uint64_t pcr, item.integer(tpm::kPcrCount - 1));
    pcrs.insert(static_cast<unsigned>(pcr));
  }
  if (pcrs.empty() && !none_is_right)
    return Error(ErrorCode::Malformed, std::string(member) + ": names no PCR");
  return {};
}

}  // namespace

Options::Options() : limits(default_limits()) {}

Result<> apply_config(std::string_view text, Options& options) {
  VTPM_TRY(const json::Value document, json::parse(text, kMaxConfigFile));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY_VOID(set_text(reader, "state_dir", options.state_dir));
  VTPM_TRY_VOID(set_text(reader, "runtime_dir", options.runtime_dir));
  VTPM_TRY_VOID(set_text(reader, "anchor", options.anchor));
  VTPM_TRY_VOID(set_text(reader, "engine", options.engine));
  VTPM_TRY(auto group, reader.optional_string("group"));
  if (group) options.group = std::move(group);
  VTPM_TRY(options.max_instances_per_user,
           reader.optional_integer("max_instances_per_user", options.max_instances_per_user, 1'000'000));
  const auto age = static_cast<std::uint64_t>(options.epoch_max_age.count());
  VTPM_TRY(const std::uint64_t seconds, reader.optional_integer("epoch_max_age_seconds", age, 86400));
  options.epoch_max_age = std::chrono::seconds(seconds);
  const auto interval = static_cast<std::uint64_t>(options.state_interval.count());
  VTPM_TRY(const std::uint64_t pause, reader.optional_integer("state_interval_seconds", interval, 86400));
  if (pause == 0) return Error(ErrorCode::Malformed, "state_interval_seconds: must be at least 1");
  options.state_interval = std::chrono::seconds(pause);
  VTPM_TRY_VOID(set_pcrs(reader, "anchor_pcrs", false, options.anchor_pcrs));
  VTPM_TRY_VOID(set_pcrs(reader, "seal_pcrs", true, options.seal_pcrs));
  if (const auto limits = reader.optional_member("limits")) {
    VTPM_TRY(LimitOrder order, read_limits(*limits));
    order.by_operator = true;
    options.limits = effective(options.limits, order);
  }
  return reader.done();
}

Result<CommandLine> parse_command_line(int argc, char** argv) {
  CommandLine line;
  Options given;
  std::string config, group;
  std::vector<std::string> limits;
  CLI::App app("vtpmd: the supervisor of the containers' TPMs", "vtpmd");
  app.set_version_flag("--version", VTPM_VERSION);
  app.add_option("--state-dir", given.state_dir, "Where the log and the anchor's key are kept")
      ->capture_default_str();
  app.add_option("--runtime-dir", given.runtime_dir, "Where the sockets are made")->capture_default_str();
  app.add_option(
      "--anchor", given.anchor,
      "The TPM that signs: 'embedded' (software), or a TCTI such as device:/dev/tpmrm0 (the default)");
  app.add_option("--engine", given.engine, "The vtpm-engine program");
  app.add_option("--group", group, "Members of this group are operators");
  app.add_option("--limit", limits, "NAME=VALUE: what each TPM may use, if nothing else was set for it")
      ->allow_extra_args(false);
  app.add_option("--config", config, "A JSON file with the same settings; the command line overrides it");
  try {  // CLI11 reports by exceptions; they end here
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    line.exit_status = app.exit(error) == 0 ? 0 : 2;
    return line;
  }
  if (!config.empty()) {
    VTPM_TRY(const Bytes text, read_file(config, kMaxConfigFile));
    const auto applied = apply_config(as_text(text), line.options);
    if (!applied) return Error(ErrorCode::Configuration, config + ": " + applied.error().context);
  }
  if (app.count("--state-dir") > 0) line.options.state_dir = given.state_dir;
  if (app.count("--runtime-dir") > 0) line.options.runtime_dir = given.runtime_dir;
  if (app.count("--anchor") > 0) line.options.anchor = given.anchor;
  if (app.count("--engine") > 0) line.options.engine = given.engine;
  if (app.count("--group") > 0) line.options.group = group;
  for (const std::string& limit : limits) {
    const auto set = set_limit(line.options.limits, limit);
    if (!set) return Error(ErrorCode::Configuration, "--limit: " + set.error().context);
  }
  if (line.options.engine.empty()) line.options.engine = find_engine();
  return line;
}

std::string find_engine() {
  const std::string installed = VTPM_LIBEXEC_DIR "/vtpm-engine";
  std::array<char, PATH_MAX> self{};
  const ssize_t n = ::readlink("/proc/self/exe", self.data(), self.size());
  if (n <= 0) return installed;
  const std::string_view program(self.data(), static_cast<std::size_t>(n));
  const std::string beside = std::string(program.substr(0, program.rfind('/') + 1)) + "vtpm-engine";
  return ::access(beside.c_str(), X_OK) == 0 ? beside : installed;
}

}  // namespace vtpm::supervisor
