// SPDX-License-Identifier: Apache-2.0
// vtpmd: the supervisor.
#include "daemon/supervisor/logging.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/supervisor.h"

#include <cstdlib>

int main(int argc, char** argv) {
  using namespace vtpm::supervisor;
  // tpm2-tss reports each refusal of a TPM on standard error, expected ones too; vtpmd reports what matters
  // itself.
  ::setenv("TSS2_LOG", "all+none", 0);
  const auto line = parse_command_line(argc, argv);
  if (!line) {
    log_line(LogLevel::Error, line.error().context);
    return 4;
  }
  if (line->exit_status) return *line->exit_status;
  const auto ended = run(line->options);
  if (ended) return 0;
  log_line(LogLevel::Error, ended.error().context);
  return vtpm::exit_status(ended.error().kind());
}
