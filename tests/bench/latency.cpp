// SPDX-License-Identifier: Apache-2.0
// Command latency of several TPMs side by side, through tpm2-tss as its users see it.
//
// usage: bench_latency ITERATIONS NAME=TCTI...   (a TCTI of tpm2-tss, or stream:PATH)
//
// The TPMs take turns, a block of commands each, so that whatever disturbs the machine disturbs all alike.
// Prints one line per command and TPM: NAME COMMAND COUNT P50 P90, in microseconds. NV_Write runs a fifth
// of the iterations, Quote a tenth and CreatePrimary a fiftieth: they cost that much more.
#include "tests/bench/target.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

// A command; it returns the object that it made, to be flushed outside the measurement.
struct Command {
  const char* name;
  unsigned share;  // of the iterations: one in `share`
  std::function<ESYS_TR(Target&)> run;
};

const std::vector<Command>& commands() {
  static const std::vector<Command> all = {
      {"GetRandom(32)", 1, [](Target& t) { return t.get_random(), ESYS_TR_NONE; }},
      {"PCR_Extend", 1, [](Target& t) { return t.pcr_extend(), ESYS_TR_NONE; }},
      {"bare_GetRandom(32)", 1, [](Target& t) { return t.get_random_bare(), ESYS_TR_NONE; }},
      {"bare_NV_Write(32)", 5, [](Target& t) { return t.nv_write(), ESYS_TR_NONE; }},
      {"Quote_P-256", 10, [](Target& t) { return t.quote(), ESYS_TR_NONE; }},
      {"CreatePrimary_P-256", 50, [](Target& t) { return t.create_primary(false); }},
  };
  return all;
}

double measure(const Command& command, Target& target) {
  const auto began = Clock::now();
  const ESYS_TR made = command.run(target);
  const double took = Microseconds(Clock::now() - began).count();
  if (made != ESYS_TR_NONE) target.flush(made);
  return took;
}

// Commands in a row on one TPM: as of a client at work, yet short beside what disturbs a machine.
constexpr unsigned kBlock = 20;

void bench(const Command& command, std::vector<std::unique_ptr<Target>>& targets, unsigned iterations) {
  const unsigned count = std::max(1U, iterations / command.share);
  std::vector<std::vector<double>> times(targets.size());
  for (auto& target : targets)
    measure(command, *target);  // the first one warms caches
  for (unsigned done = 0; done < count; done += kBlock) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
      for (unsigned n = done; n < std::min(count, done + kBlock); ++n)
        times[i].push_back(measure(command, *targets[i]));
    }
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const std::size_t last = times[i].size() - 1;
    std::printf("%s %s %u %.2f %.2f\n", targets[i]->name().c_str(), command.name, count, times[i][last / 2],
                times[i][last * 9 / 10]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const long iterations = argc > 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (iterations < 1 || iterations > 10'000'000) {
    std::fprintf(stderr, "usage: bench_latency ITERATIONS NAME=TCTI...\n");
    return 2;
  }
  std::vector<std::unique_ptr<Target>> targets;
  for (const std::string argument : std::span(argv, static_cast<std::size_t>(argc)).subspan(2)) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      std::fprintf(stderr, "bench_latency: %s is not NAME=TCTI\n", argument.c_str());
      return 2;
    }
    targets.push_back(std::make_unique<Target>(argument.substr(0, equals), argument.substr(equals + 1)));
  }
  for (const Command& command : commands())
    bench(command, targets, static_cast<unsigned>(iterations));
  return 0;
}
