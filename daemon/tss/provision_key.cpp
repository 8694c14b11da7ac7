// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/provision_key.h"

#include "daemon/tss/marshal.h"

#include <tss2/tss2_sys.h>

#include <optional>

namespace vtpm::tss {
namespace {

// One empty password.
TSS2L_SYS_AUTH_COMMAND no_password() noexcept {
  TSS2L_SYS_AUTH_COMMAND auth{};
  auth.count = 1;
  auth.auths[0].sessionHandle = TPM2_RS_PW;
  return auth;
}

// A SYS function with its arguments bound, run as an ESYS call.
template <class Function>
Result<> call(Esys& esys, std::string_view what, const Function& function) {
  return esys.call(what, [&function](ESYS_CONTEXT* context) {
    TSS2_SYS_CONTEXT* sys = nullptr;
    const TSS2_RC rc = Esys_GetSysContext(context, &sys);
    return rc == TSS2_RC_SUCCESS ? function(sys) : rc;
  });
}

struct Made {
  TPM2_HANDLE handle;
  PersistentKey key;
};

Result<Made> create(Esys& esys, TPM2_HANDLE hierarchy, const TPMT_PUBLIC& public_template) {
  const TSS2L_SYS_AUTH_COMMAND auth = no_password();
  const TPM2B_SENSITIVE_CREATE sensitive{};
  TPM2B_PUBLIC in_public{};
  in_public.publicArea = public_template;
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  TPM2_HANDLE handle = 0;
  TPM2B_PUBLIC out_public{};
  TPM2B_NAME name{};
  TSS2L_SYS_AUTH_RESPONSE answered{};
  VTPM_TRY_VOID(call(esys, "TPM2_CreatePrimary", [&](TSS2_SYS_CONTEXT* sys) {
    return Tss2_Sys_CreatePrimary(sys, hierarchy, &auth, &sensitive, &in_public, &outside, &pcrs, &handle,
                                  &out_public, nullptr, nullptr, nullptr, &name, &answered);
  }));
  VTPM_TRY(Bytes area, marshal_public(out_public.publicArea));
  return Made{handle, {std::move(area), Bytes(name.name, name.name + name.size)}};
}

Result<> persist(Esys& esys, TPM2_HANDLE object, TPM2_HANDLE handle) {
  const TSS2L_SYS_AUTH_COMMAND auth = no_password();
  TSS2L_SYS_AUTH_RESPONSE answered{};
  return call(esys, "TPM2_EvictControl", [&](TSS2_SYS_CONTEXT* sys) {
    return Tss2_Sys_EvictControl(sys, TPM2_RH_OWNER, object, &auth, handle, &answered);
  });
}

}  // namespace

Result<PersistentKey> make_persistent_key(Esys& esys, TPM2_HANDLE hierarchy,
                                          const TPMT_PUBLIC& public_template, TPM2_HANDLE handle) {
  VTPM_TRY(Made made, create(esys, hierarchy, public_template));
  const auto persisted = persist(esys, made.handle, handle);
  const auto flushed = call(esys, "TPM2_FlushContext", [&made](TSS2_SYS_CONTEXT* sys) {
    return Tss2_Sys_FlushContext(sys, made.handle);
  });
  VTPM_TRY_VOID(persisted);
  VTPM_TRY_VOID(flushed);
  return std::move(made.key);
}

}  // namespace vtpm::tss
