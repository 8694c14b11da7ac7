// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/marshal.h"

#include "daemon/tss/response.h"

#include <tss2/tss2_mu.h>

namespace vtpm::tss {
namespace {

template <class T>
Result<Bytes> marshal(std::string_view what, const T& structure,
                      TSS2_RC (*function)(const T*, std::uint8_t[], std::size_t, std::size_t*)) {
  Bytes bytes(sizeof(T));  // no structure is longer on the wire
  std::size_t size = 0;
  const TSS2_RC rc = function(&structure, bytes.data(), bytes.size(), &size);
  if (rc != TSS2_RC_SUCCESS) return to_error(what, rc);
  bytes.resize(size);
  return bytes;
}

}  // namespace

Result<Bytes> marshal_public(const TPMT_PUBLIC& area) {
  return marshal("TPMT_PUBLIC", area, &Tss2_MU_TPMT_PUBLIC_Marshal);
}

Result<TPMT_PUBLIC> unmarshal_public(BytesView bytes) {
  TPMT_PUBLIC area{};
  std::size_t size = 0;
  const TSS2_RC rc = Tss2_MU_TPMT_PUBLIC_Unmarshal(bytes.data(), bytes.size(), &size, &area);
  if (rc != TSS2_RC_SUCCESS || size != bytes.size()) return Error(ErrorCode::Malformed, "not a TPMT_PUBLIC");
  return area;
}

Result<Bytes> marshal_signature(const TPMT_SIGNATURE& signature) {
  return marshal("TPMT_SIGNATURE", signature, &Tss2_MU_TPMT_SIGNATURE_Marshal);
}

}  // namespace vtpm::tss
