// SPDX-License-Identifier: Apache-2.0
// The few commands that the engine itself gives to its TPM (TCG TPM 2.0 Library Part 3). None needs an
// authorization.
#pragma once

#include "daemon/engine/tpm.h"

#include <optional>
#include <vector>

namespace vtpm::engine {

// First handles of the ranges that TPM2_GetCapability(HANDLES) lists (Part 2, 7.4).
inline constexpr std::uint32_t kLoadedSessionFirst = 0x02000000;
inline constexpr std::uint32_t kSavedSessionFirst = 0x03000000;
inline constexpr std::uint32_t kTransientFirst = 0x80000000;

// The handles in use from `first` to the end of its range. Empty also when the TPM does not answer (it was
// not started).
std::vector<std::uint32_t> handles_from(Tpm& tpm, std::uint32_t first);
// Whether the handle was flushed.
bool flush_context(Tpm& tpm, std::uint32_t handle);
// The TPMS_CONTEXT, or nothing if the TPM refuses.
std::optional<Bytes> save_context(Tpm& tpm, std::uint32_t handle);
// The response code, and the new handle where it is Success.
struct LoadedContext {
  std::uint32_t code;
  std::uint32_t handle;
};
LoadedContext load_context(Tpm& tpm, BytesView context);
// TPM2_Shutdown(CLEAR), so that the next power-on is not counted as a disorderly one.
void shutdown_clear(Tpm& tpm);

// The response code of a response. A malformed one: Failure.
std::uint32_t response_code(BytesView response);

}  // namespace vtpm::engine
