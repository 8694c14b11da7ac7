// SPDX-License-Identifier: Apache-2.0
// SHA-256, the hash of the log, of PCR values and of evidence.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <initializer_list>

namespace vtpm::tpm {

using Sha256 = std::array<std::uint8_t, 32>;

// SHA-256 of the concatenation of the parts.
Sha256 sha256(std::initializer_list<BytesView> parts) noexcept;
inline Sha256 sha256(BytesView bytes) noexcept {
  return sha256({bytes});
}
// 64 lower-case hexadecimal digits. Malformed otherwise.
Result<Sha256> sha256_from_hex(std::string_view text);
// Exactly 32 bytes. Malformed otherwise.
Result<Sha256> sha256_from_bytes(BytesView bytes);
// The value of a PCR after extending `digest` into `old`: SHA-256(old || digest).
Sha256 extend(const Sha256& old, const Sha256& digest) noexcept;

}  // namespace vtpm::tpm
