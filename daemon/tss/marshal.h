// SPDX-License-Identifier: Apache-2.0
// TCG structures to the bytes that the library and evidence hold.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <tss2/tss2_tpm2_types.h>

namespace vtpm::tss {

// A structure that cannot be marshalled (an unknown selector): Internal.
Result<Bytes> marshal_public(const TPMT_PUBLIC& area);
// Bytes that are not exactly one TPMT_PUBLIC: Malformed.
Result<TPMT_PUBLIC> unmarshal_public(BytesView bytes);
Result<Bytes> marshal_signature(const TPMT_SIGNATURE& signature);

}  // namespace vtpm::tss
