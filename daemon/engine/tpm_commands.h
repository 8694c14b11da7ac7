// SPDX-License-Identifier: Apache-2.0
// What the engine itself asks of its TPM, and how it reads the answer.
#pragma once

#include "daemon/engine/tpm.h"

namespace vtpm::engine {

// TPM2_Shutdown(CLEAR), so that the next power-on is not counted as a disorderly one.
// The TPM refuses (a durable one whose disk is full): Unavailable, the stop is unclean.
Result<> shutdown_clear(Tpm& tpm);

// The response code of a response. A malformed one: Failure.
std::uint32_t response_code(BytesView response);
// Whether the command was cancelled while it ran.
bool is_cancelled(BytesView response);

}  // namespace vtpm::engine
