// SPDX-License-Identifier: Apache-2.0
// How an anchor reaches its TPM: over a TCTI, or in an engine of our own.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/tss/esys.h"

namespace vtpm::anchor {

// One TPM, connected or not. An Esys that it gave must be gone before the next connect() or close().
class Connection {
 public:
  virtual ~Connection() = default;
  virtual log::AnchorKind kind() const noexcept = 0;
  // A new connection to a TPM that has been started (Startup(CLEAR) if it was not).
  virtual Result<std::unique_ptr<tss::Esys>> connect() = 0;
  // Keeps what the TPM has stored so far, where that is not the TPM's own business.
  virtual Result<> save() = 0;
  // Orderly end.
  virtual Result<> close() = 0;
};

std::unique_ptr<Connection> tcti_connection(std::string tcti);

// An engine with its permanent state in state_dir/embedded-tpm.state (FORMATS.md). Damaged state, or none
// although anchor.json is there: connect() is Corrupt.
std::unique_ptr<Connection> embedded_connection(std::string state_dir, SpawnEngine spawn);

std::string embedded_state_path(const std::string& state_dir);

// open_anchor over a given connection.
Result<std::unique_ptr<Anchor>> open_over(std::unique_ptr<Connection> connection, const AnchorConfig& config);

}  // namespace vtpm::anchor
