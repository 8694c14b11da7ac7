// SPDX-License-Identifier: Apache-2.0
// Authorization sessions, held so that none stays in the TPM.
#pragma once

#include "daemon/tss/object.h"
#include "daemon/tss/quote.h"

namespace vtpm::tss {

// A session, flushed on destruction. Salted to a key of the TPM, so that who listens on the bus does not know
// its keys; parameters are encrypted with AES-128-CFB where its attributes ask for that. Must not outlive its
// Esys.
class Session {
 public:
  // `type`: TPM2_SE_*. `hash`: of a policy session that of the nameAlg of the object it is for.
  static Result<Session> start(Esys& esys, const Object& salt_key, TPM2_SE type,
                               TPM2_ALG_ID hash = TPM2_ALG_SHA256);
  Session(Session&& other) noexcept
      : esys_(other.esys_), handle_(std::exchange(other.handle_, ESYS_TR_NONE)) {}
  Session& operator=(Session&&) = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  ESYS_TR handle() const noexcept { return handle_; }

  // The attributes (TPMA_SESSION_*) for what follows; it is continued in any case.
  Result<> set(TPMA_SESSION attributes);
  // TPM2_PolicyPCR with the values that the PCRs have.
  Result<> bind_to(const PcrSelection& pcrs);
  // TPM2_PolicySecret by an object or hierarchy (ESYS_TR_RH_*) whose auth value ESYS knows.
  Result<> prove(ESYS_TR entity);

 private:
  Session(Esys& esys, ESYS_TR handle) noexcept : esys_(&esys), handle_(handle) {}
  Esys* esys_;
  ESYS_TR handle_;
};

}  // namespace vtpm::tss
