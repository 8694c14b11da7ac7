// SPDX-License-Identifier: Apache-2.0
// How ESYS reaches a TPM: a TCTI that tpm2-tss loads by name, or one of our own over a function (an engine).
#pragma once

#include "daemon/ipc/engine_link.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/header.h>

#include <tss2/tss2_tcti.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace vtpm::tss {

// One command to its response. Blocks.
using Transmit = std::function<Result<Bytes>(BytesView command)>;

// The owner of a TCTI context, finalized on destruction.
class Tcti {
 public:
  virtual ~Tcti() = default;
  virtual TSS2_TCTI_CONTEXT* context() noexcept = 0;
  // The host failure behind the TCTI code that was returned last, where more is known than the code; taken.
  virtual std::optional<Error> take_error() { return std::nullopt; }
};

// A TCTI by its tpm2-tss configuration ("device:/dev/tpmrm0", "swtpm:path=..."). No such TCTI or a bad
// option: Configuration. A device that the user may not open: PermissionDenied. Nobody there: Unreachable.
// tpm2-tss writes to sockets without MSG_NOSIGNAL: the process must ignore SIGPIPE.
Result<std::unique_ptr<Tcti>> open_tcti(const std::string& configuration);

// A TCTI over `transmit`.
std::unique_ptr<Tcti> make_tcti(Transmit transmit);

// Commands to an engine (borrowed) at a locality.
Transmit over_engine(ipc::EngineLink& engine, tpm::Locality locality);

}  // namespace vtpm::tss
