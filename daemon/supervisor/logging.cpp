// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/logging.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

namespace vtpm::supervisor {
namespace {

std::string prefix(LogLevel level) {
  // systemd sets JOURNAL_STREAM when standard error goes to the journal (systemd.exec(5)).
  static const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  if (journal) return "<" + std::to_string(static_cast<int>(level)) + ">";
  switch (level) {
    case LogLevel::Error:
      return "vtpmd: error: ";
    case LogLevel::Warning:
      return "vtpmd: warning: ";
    case LogLevel::Info:
      break;
  }
  return "vtpmd: ";
}

}  // namespace

void log_line(LogLevel level, std::string_view text) {
  std::string line = prefix(level);
  for (const char c : text)
    line += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  line += '\n';
  // One write, so that lines of several threads do not mix. A log that cannot be written is not an error.
  [[maybe_unused]] const auto n = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace vtpm::supervisor
