// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/response.h"

#include <tss2/tss2_rc.h>

namespace vtpm::tss {
namespace {

TSS2_RC layer_of(TSS2_RC rc) noexcept {
  return rc & TSS2_RC_LAYER_MASK;
}

ErrorCode kind_of_tpm_code(TSS2_RC rc) noexcept {
  if (is_busy(rc)) return ErrorCode::Busy;
  return plain_code(rc) == TPM2_RC_NV_SPACE ? ErrorCode::Exhausted : ErrorCode::TpmFailure;
}

ErrorCode kind_of_software_code(TSS2_RC rc) noexcept {
  switch (rc & ~TSS2_RC_LAYER_MASK) {
    case TSS2_BASE_RC_MALFORMED_RESPONSE:
    case TSS2_BASE_RC_INSUFFICIENT_RESPONSE:
    case TSS2_BASE_RC_INSUFFICIENT_BUFFER:
      return ErrorCode::Malformed;
    default:
      return layer_of(rc) == TSS2_TCTI_RC_LAYER ? ErrorCode::Unreachable : ErrorCode::Internal;
  }
}

}  // namespace

bool is_from_tpm(TSS2_RC rc) noexcept {
  return layer_of(rc) == TSS2_TPM_RC_LAYER || layer_of(rc) == TSS2_RESMGR_TPM_RC_LAYER;
}

TPM2_RC plain_code(TSS2_RC rc) noexcept {
  const TPM2_RC code = rc & ~TSS2_RC_LAYER_MASK;
  const bool names_an_argument = (code & TPM2_RC_FMT1) != 0;
  return names_an_argument ? code & (TPM2_RC_FMT1 | 0x3f) : code;
}

bool is_busy(TSS2_RC rc) noexcept {
  if (!is_from_tpm(rc)) return false;
  switch (plain_code(rc)) {
    case TPM2_RC_RETRY:
    case TPM2_RC_YIELDED:
    case TPM2_RC_TESTING:
    case TPM2_RC_CANCELED:
    case TPM2_RC_OBJECT_MEMORY:
    case TPM2_RC_OBJECT_HANDLES:
    case TPM2_RC_SESSION_MEMORY:
    case TPM2_RC_SESSION_HANDLES:
    case TPM2_RC_MEMORY:
    case TPM2_RC_NV_RATE:
    case TPM2_RC_NV_UNAVAILABLE:
    case TPM2_RC_LOCKOUT:
      return true;
    default:
      return false;
  }
}

Error to_error(std::string_view what, TSS2_RC rc) {
  const ErrorCode kind = is_from_tpm(rc) ? kind_of_tpm_code(rc) : kind_of_software_code(rc);
  return Error(kind, std::string(what) + ": " + Tss2_RC_Decode(rc));
}

}  // namespace vtpm::tss
