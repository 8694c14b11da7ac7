// SPDX-License-Identifier: Apache-2.0
// vtpm-hook: the OCI hook that gives a container its TPM. A runtime runs it with the container's state on
// standard input; it lives for a millisecond or two and leaves no process behind.
#include "container-hooks/report.h"
#include "container-hooks/stages.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

namespace {

using namespace vtpm;
using namespace vtpm::hook;

constexpr int kUsage = 2;
constexpr std::string_view kHelp =
    "usage: vtpm-hook [--runtime-dir DIR] [--enable] STAGE\n"
    "Gives an OCI container its TPM. Run by the container runtime, with the container's state on standard "
    "input.\n"
    "  --runtime-dir DIR  where vtpmd's attach.sock is (default: $VTPM_RUNTIME_DIR or /run/vtpm)\n"
    "  --enable           as if the container had the annotation dev.vtpm.enable=true (used by the CDI "
    "spec)\n"
    "  STAGE              createRuntime or prestart: make the device; poststop: let go of it;\n"
    "                     createContainer, startContainer, poststart: nothing\n";

Result<> nothing(const Options&) {
  return {};
}

struct Stage {
  std::string_view name;
  Result<> (*run)(const Options&);
  int failure;  // exit status
};
constexpr std::array kStages = {
    Stage{"prestart", create_runtime, 1},
    Stage{"createRuntime", create_runtime, 1},
    Stage{"createContainer", nothing, 1},
    Stage{"startContainer", nothing, 1},
    Stage{"poststart", nothing, 1},
    Stage{"poststop", poststop, 0},  // a hint to vtpmd, which sees the end of the container by itself
};

const Stage* stage_named(std::string_view name) noexcept {
  for (const auto& stage : kStages)
    if (stage.name == name) return &stage;
  return nullptr;
}

int usage(std::string_view what) {
  report("vtpm-hook: " + std::string(what) + "\n" + std::string(kHelp));
  return kUsage;
}

int run(const Stage& stage, const Options& options) {
  const auto done = stage.run(options);
  if (done) return 0;
  report("vtpm-hook: " + std::string(stage.name) + ": " + done.error().context + "\n");
  return stage.failure;
}

}  // namespace

int main(int argc, char** argv) {
  // Runtimes leave pipes and sockets of their own open in hooks (runc its sync socket and exec.fifo).
  ::close_range(3, std::numeric_limits<unsigned>::max(), 0);
  const char* from_environment = std::getenv("VTPM_RUNTIME_DIR");
  Options options{from_environment != nullptr ? from_environment : "/run/vtpm", false};
  std::optional<std::string_view> name;
  const std::span<char*> arguments(argv, static_cast<std::size_t>(argc));
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--help") return std::fputs(kHelp.data(), stdout) < 0 ? 1 : 0;
    if (argument == "--enable") {
      options.enable = true;
    } else if (argument == "--runtime-dir" && i + 1 < arguments.size()) {
      options.runtime_dir = arguments[++i];
    } else if (argument.substr(0, 1) == "-" || name) {
      return usage("unexpected argument '" + std::string(argument) + "'");
    } else {
      name = argument;
    }
  }
  if (!name) return usage("which stage?");
  const Stage* stage = stage_named(*name);
  if (stage == nullptr) return usage("no such stage: '" + std::string(*name) + "'");
  return run(*stage, options);
}
