// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/response.h"

#include <catch2/catch.hpp>
#include <tss2/tss2_rc.h>

using namespace vtpm;
using namespace vtpm::tss;

TEST_CASE("response code: the number of a handle, parameter or session is left out") {
  CHECK(plain_code(TPM2_RC_HANDLE + TPM2_RC_H + TPM2_RC_1) == TPM2_RC_HANDLE);
  CHECK(plain_code(TPM2_RC_AUTH_FAIL + TPM2_RC_S + TPM2_RC_1) == TPM2_RC_AUTH_FAIL);
  CHECK(plain_code(TPM2_RC_SIZE + TPM2_RC_P + TPM2_RC_4) == TPM2_RC_SIZE);
  CHECK(plain_code(TPM2_RC_RETRY) == TPM2_RC_RETRY);
  CHECK(plain_code(TPM2_RC_INITIALIZE) == TPM2_RC_INITIALIZE);
}

TEST_CASE("response code: the layer of a resource manager does not hide the TPM's code") {
  const TSS2_RC rc = TSS2_RESMGR_TPM_RC_LAYER + TPM2_RC_OBJECT_MEMORY;
  CHECK(is_from_tpm(rc));
  CHECK(is_busy(rc));
}

TEST_CASE("response code: each kind of failure becomes its error") {
  struct Row {
    TSS2_RC rc;
    ErrorCode kind;
  };
  const auto row =
      GENERATE(Row{TPM2_RC_RETRY, ErrorCode::Busy}, Row{TPM2_RC_OBJECT_MEMORY, ErrorCode::Busy},
               Row{TPM2_RC_SESSION_HANDLES, ErrorCode::Busy}, Row{TPM2_RC_SESSION_MEMORY, ErrorCode::Busy},
               Row{TPM2_RC_NV_RATE, ErrorCode::Busy}, Row{TPM2_RC_LOCKOUT, ErrorCode::Busy},
               Row{TPM2_RC_NV_SPACE, ErrorCode::Exhausted}, Row{TPM2_RC_FAILURE, ErrorCode::TpmFailure},
               Row{TPM2_RC_VALUE + TPM2_RC_P + TPM2_RC_1, ErrorCode::TpmFailure},
               Row{TSS2_TCTI_RC_IO_ERROR, ErrorCode::Unreachable},
               Row{TSS2_TCTI_RC_NO_CONNECTION, ErrorCode::Unreachable},
               Row{TSS2_SYS_RC_MALFORMED_RESPONSE, ErrorCode::Malformed},
               Row{TSS2_ESYS_RC_BAD_SEQUENCE, ErrorCode::Internal});
  const Error error = to_error("TPM2_Test", row.rc);
  CHECK(error.kind() == row.kind);
  CHECK(error.context == std::string("TPM2_Test: ") + Tss2_RC_Decode(row.rc));
}
