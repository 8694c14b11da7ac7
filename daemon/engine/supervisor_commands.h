// SPDX-License-Identifier: Apache-2.0
// Commands of the supervisor, which must not fail because the tenant fills the TPM's three object slots.
#pragma once

#include "daemon/engine/tpm.h"

#include <optional>

namespace vtpm::engine {

class SupervisorCommands {
 public:
  explicit SupervisorCommands(Tpm& tpm) noexcept : tpm_(tpm) {}

  // Runs a command. If it is answered TPM_RC_OBJECT_MEMORY, one of the tenant's transient objects is saved
  // and flushed, the command repeated, and the object loaded again at its old handle (libtpms takes the first
  // free slot, which is the one just freed). If the command left an object of its own there, the tenant's is
  // loaded after a later command of the supervisor, so flush before the tenant's turn.
  // A context that returns elsewhere, because the tenant's slots have changed, would be another's handle to
  // the tenant: it is flushed again, and loaded after a later command.
  Result<Bytes> run(tpm::Locality locality, BytesView command);

 private:
  struct Evicted {
    std::uint32_t handle;
    Bytes context;
  };
  bool evict();
  void restore();

  Tpm& tpm_;
  std::optional<Evicted> evicted_;
};

}  // namespace vtpm::engine
