// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/session.h"

namespace vtpm::tss {

Result<Session> Session::start(Esys& esys, const Object& salt_key, TPM2_SE type, TPM2_ALG_ID hash) {
  TPMT_SYM_DEF symmetric{};
  symmetric.algorithm = TPM2_ALG_AES;
  symmetric.keyBits.aes = 128;
  symmetric.mode.aes = TPM2_ALG_CFB;
  ESYS_TR handle = ESYS_TR_NONE;
  VTPM_TRY_VOID(esys.call("TPM2_StartAuthSession", [&](ESYS_CONTEXT* context) {
    return Esys_StartAuthSession(context, salt_key.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                 ESYS_TR_NONE, nullptr, type, &symmetric, hash, &handle);
  }));
  return Session(esys, handle);
}

Session::~Session() {
  // Of a failure nothing is to be done: the resource manager flushes what the connection leaves.
  if (handle_ != ESYS_TR_NONE)
    static_cast<void>(esys_->execute(
        "TPM2_FlushContext", [this](ESYS_CONTEXT* context) { return Esys_FlushContext(context, handle_); }));
}

Result<> Session::set(TPMA_SESSION attributes) {
  attributes |= TPMA_SESSION_CONTINUESESSION;
  const TSS2_RC rc = Esys_TRSess_SetAttributes(esys_->context(), handle_, attributes, 0xff);
  if (rc != TSS2_RC_SUCCESS) return to_error("Esys_TRSess_SetAttributes", rc);
  return {};
}

Result<> Session::bind_to(const PcrSelection& pcrs) {
  const TPM2B_DIGEST as_they_are{};
  const TPML_PCR_SELECTION list = to_list(pcrs);
  return esys_->call("TPM2_PolicyPCR", [&](ESYS_CONTEXT* context) {
    return Esys_PolicyPCR(context, handle_, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &as_they_are, &list);
  });
}

Result<> Session::prove(ESYS_TR entity) {
  return esys_->call("TPM2_PolicySecret", [&](ESYS_CONTEXT* context) {
    return Esys_PolicySecret(context, entity, handle_, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, nullptr,
                             nullptr, nullptr, 0, nullptr, nullptr);
  });
}

}  // namespace vtpm::tss
