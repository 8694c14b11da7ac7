// SPDX-License-Identifier: Apache-2.0
// vtpmd's options: the command line, and a JSON file whose members it overrides.
#pragma once

#include "daemon/ipc/engine_limits.h"

#include <vtpm/os/result.h>

#include <chrono>
#include <optional>
#include <set>
#include <string>

namespace vtpm::supervisor {

struct Options {
  Options();
  std::string state_dir = "/var/lib/vtpm";
  std::string runtime_dir = "/run/vtpm";
  std::string anchor;                // "embedded" or a TCTI; empty: the hardware TPM of this host
  std::string engine;                // path of vtpm-engine; empty: find_engine()
  std::optional<std::string> group;  // whose members are operators
  std::uint64_t max_instances_per_user = 64;
  std::chrono::seconds epoch_max_age{60};   // an epoch that old is not used for new evidence
  std::chrono::seconds state_interval{30};  // between two entries of what a durable instance has stored
  std::set<unsigned> anchor_pcrs = {0, 1, 2, 3, 4, 5, 6, 7};
  std::set<unsigned> seal_pcrs;
  ipc::EngineLimits limits;  // of every instance for which no others were set
};

// Either options to run with, or the exit status of a run that is over (--help, a usage error).
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};
// Prints help and usage errors itself. A --config file that cannot be used: an Error that names it.
Result<CommandLine> parse_command_line(int argc, char** argv);

// Sets the options that the document names. Strict: unknown members are Malformed.
Result<> apply_config(std::string_view json, Options& options);

// vtpm-engine beside this program, else the installed one.
std::string find_engine();

}  // namespace vtpm::supervisor
