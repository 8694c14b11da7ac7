// SPDX-License-Identifier: Apache-2.0
// TCG structures from hostile bytes, by tss2-mu.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <tss2/tss2_mu.h>

#include <algorithm>
#include <string>

namespace vtpm::tpm {

inline constexpr std::size_t kMaxStructure = 4096;

inline Error malformed(std::string_view type, std::string_view what) {
  return {ErrorCode::Malformed, std::string(type) + ": " + std::string(what)};
}

// A TCG structure that takes all of `bytes` and is marshalled to the same bytes again: no second spelling of
// a structure is accepted, whatever tss2-mu tolerates.
template <class T, auto Unmarshal, auto Marshal>
Result<T> structure(BytesView bytes, std::string_view type) {
  if (bytes.empty() || bytes.size() > kMaxStructure) return malformed(type, "no structure of this type");
  T value{};
  std::size_t offset = 0;
  if (Unmarshal(bytes.data(), bytes.size(), &offset, &value) != TSS2_RC_SUCCESS)
    return malformed(type, "does not parse");
  if (offset != bytes.size()) return malformed(type, "trailing bytes");
  Bytes again(bytes.size());
  offset = 0;
  if (Marshal(&value, again.data(), again.size(), &offset) != TSS2_RC_SUCCESS || offset != bytes.size() ||
      !std::ranges::equal(again, bytes))
    return malformed(type, "not the canonical spelling");
  return value;
}

}  // namespace vtpm::tpm
