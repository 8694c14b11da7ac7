// SPDX-License-Identifier: Apache-2.0
// The commands that the resource manager itself gives to the TPM, at locality 0.
//
// ContextSave, ContextLoad and FlushContext allow no session, so that in libtpms (SessionProcess.c,
// UpdateAuditSessionStatus) they leave an exclusive audit session exclusive. GetCapability would end it: it
// is sent after a TPM2_Startup only, when there is no session yet.
#pragma once

#include "space/command_attributes.h"
#include "space/handles.h"

#include <vtpm/space/transmit.h>

namespace vtpm::space {

// A response; its body is what follows the header. Valid until the TPM's next command.
struct Reply {
  tpm::ResponseCode code;
  BytesView response;
  BytesView body;
};
Result<Reply> transmit(Transmit& tpm, tpm::Locality locality, BytesView command);

// "Format one": the command itself is at fault (a damaged context, a handle that is not there), as opposed to
// the state of the TPM.
constexpr bool blames_command(tpm::ResponseCode code) noexcept {
  return (static_cast<std::uint32_t>(code) & 0x80) != 0;
}

class InternalCommands {
 public:
  explicit InternalCommands(Transmit& tpm) noexcept : tpm_(tpm) {}

  // Body: the TPMS_CONTEXT. A session leaves the TPM by it, an object does not.
  Result<Reply> context_save(std::uint32_t handle);
  // Body: the handle.
  Result<Reply> context_load(BytesView context);
  Result<Reply> flush_context(std::uint32_t handle);

  // All of a TPM_CAP list of u32 (commands, handles) from `first` on; only the response code where the TPM
  // does not answer with a list.
  struct List {
    tpm::ResponseCode code;
    std::vector<std::uint32_t> values;
  };
  Result<List> list(std::uint32_t capability, std::uint32_t first);
  // The value of one TPM_PT, 0 if the TPM does not have it.
  Result<std::uint32_t> property(std::uint32_t tpm_pt);

 private:
  Result<Reply> send(tpm::CommandCode code, BytesView parameters);
  Result<Reply> send(tpm::CommandCode code, std::uint32_t handle);
  Result<Reply> get_capability(std::uint32_t capability, std::uint32_t first, std::uint32_t count);

  Transmit& tpm_;
  Bytes command_;  // kept for its capacity
};

inline constexpr std::uint32_t kCapHandles = 1;
inline constexpr std::uint32_t kCapCommands = 2;
inline constexpr std::uint32_t kCapTpmProperties = 6;

}  // namespace vtpm::space
