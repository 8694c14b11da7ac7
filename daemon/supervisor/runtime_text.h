// SPDX-License-Identifier: Apache-2.0
// What a vtpmd needs to know of a running instance to take it back from a dead one: the column
// instance.runtime (FORMATS.md: "The supervisor's database").
#pragma once

#include "daemon/supervisor/registry.h"

namespace vtpm::supervisor {

struct Runtime {
  Provisioned made;
  std::vector<Node> nodes;
};

std::string runtime_text(const Provisioned& made, const std::vector<Node>& nodes);
// `log_index` is not in the text. Malformed: it is not what runtime_text() writes.
Result<Runtime> parse_runtime(std::string_view text, std::uint64_t log_index);

// The records of `log` that the PCRs bear out: all, or all but the last, which was written before the PCR was
// extended. Others: Conflict.
Result<log::EventLog> borne_out(const log::EventLog& log, const tpm::PcrValues& pcrs);

}  // namespace vtpm::supervisor
