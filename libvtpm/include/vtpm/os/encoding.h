// SPDX-License-Identifier: Apache-2.0
// Hexadecimal and base64, with one accepted spelling per value: what decodes re-encodes to the same text.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

namespace vtpm {

// Lower case.
std::string to_hex(BytesView bytes);
// Lower case digits only, an even number of them. Malformed otherwise.
Result<Bytes> from_hex(std::string_view text);

// RFC 4648 section 4, padded, on one line.
std::string to_base64(BytesView bytes);
// Refuses white space, missing padding and non-zero trailing bits: Malformed.
Result<Bytes> from_base64(std::string_view text);

}  // namespace vtpm
