// SPDX-License-Identifier: Apache-2.0
// What a TSS2_RC means: which layer speaks, and which kind of Error it is.
#pragma once

#include <vtpm/os/result.h>

#include <tss2/tss2_common.h>
#include <tss2/tss2_tpm2_types.h>

namespace vtpm::tss {

// Whether the TPM itself answered (success, or a response code of its own or of its resource manager).
bool is_from_tpm(TSS2_RC rc) noexcept;

// The response code without layer and without the number of the handle, parameter or session that it names
// (Part 2, 6.6): comparable with TPM2_RC_*.
TPM2_RC plain_code(TSS2_RC rc) noexcept;

// Whether the same command may succeed later with nothing changed by us: a full slot, a busy or testing TPM.
bool is_busy(TSS2_RC rc) noexcept;

// The Error of a code that is not success: Busy, Exhausted (NV space), TpmFailure; Unreachable for the
// transport; Malformed for a response that does not parse; Internal for misuse of the TSS.
Error to_error(std::string_view what, TSS2_RC rc);

}  // namespace vtpm::tss
