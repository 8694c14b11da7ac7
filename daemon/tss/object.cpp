// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/object.h"

#include "daemon/tss/marshal.h"

#include <openssl/crypto.h>

#include <algorithm>

namespace vtpm::tss {

SensitiveCreate::~SensitiveCreate() {
  OPENSSL_cleanse(&value, sizeof value);
}

Object& Object::operator=(Object&& other) noexcept {
  if (this == &other) return *this;
  release();
  esys_ = other.esys_;
  handle_ = std::exchange(other.handle_, ESYS_TR_NONE);
  kind_ = other.kind_;
  return *this;
}

void Object::release() noexcept {
  if (handle_ == ESYS_TR_NONE) return;
  // A TPM that does not answer now has lost its transient objects, or its resource manager flushes them when
  // the connection closes: there is nothing more to do about a failure.
  if (kind_ == Kind::Transient)
    static_cast<void>(esys_->execute(
        "TPM2_FlushContext", [this](ESYS_CONTEXT* context) { return Esys_FlushContext(context, handle_); }));
  else
    Esys_TR_Close(esys_->context(), &handle_);
  handle_ = ESYS_TR_NONE;
}

Result<std::variant<CreatedPrimary, Refused>> try_create_primary(Esys& esys, ESYS_TR hierarchy,
                                                                 const TPMT_PUBLIC& public_template,
                                                                 BytesView auth) {
  SensitiveCreate sensitive;
  auto& user_auth = sensitive.value.sensitive.userAuth;
  if (auth.size() > sizeof user_auth.buffer) return Error(ErrorCode::Internal, "auth value too long");
  user_auth.size = static_cast<std::uint16_t>(auth.size());
  std::copy(auth.begin(), auth.end(), user_auth.buffer);

  TPM2B_PUBLIC in_public{};
  in_public.publicArea = public_template;
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  ESYS_TR handle = ESYS_TR_NONE;
  TPM2B_PUBLIC* out_public = nullptr;
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_CreatePrimary", [&](ESYS_CONTEXT* context) {
    return Esys_CreatePrimary(context, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                              &sensitive.value, &in_public, &outside, &pcrs, &handle, &out_public, nullptr,
                              nullptr, nullptr);
  }));
  if (rc != TSS2_RC_SUCCESS) return std::variant<CreatedPrimary, Refused>(Refused{rc});
  const EsysPtr<TPM2B_PUBLIC> owned(out_public);
  Object object(esys, handle, Object::Kind::Transient);
  VTPM_TRY(Bytes area, marshal_public(owned->publicArea));
  return std::variant<CreatedPrimary, Refused>(CreatedPrimary{std::move(object), std::move(area)});
}

Result<CreatedPrimary> create_primary(Esys& esys, ESYS_TR hierarchy, const TPMT_PUBLIC& public_template,
                                      BytesView auth) {
  VTPM_TRY(auto outcome, try_create_primary(esys, hierarchy, public_template, auth));
  if (const auto* refused = std::get_if<Refused>(&outcome))
    return to_error("TPM2_CreatePrimary", refused->code);
  return std::get<CreatedPrimary>(std::move(outcome));
}

Result<> persist(Esys& esys, const Object& object, TPM2_HANDLE handle) {
  ESYS_TR persistent = ESYS_TR_NONE;
  VTPM_TRY_VOID(esys.call("TPM2_EvictControl", [&](ESYS_CONTEXT* context) {
    return Esys_EvictControl(context, ESYS_TR_RH_OWNER, object.handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE,
                             ESYS_TR_NONE, handle, &persistent);
  }));
  const Object reference(esys, persistent, Object::Kind::Persistent);
  return {};
}

Result<> evict(Esys& esys, TPM2_HANDLE handle) {
  VTPM_TRY(const auto object, find(esys, handle));
  if (!object) return Error(ErrorCode::NotFound, "no persistent object at that handle");
  ESYS_TR none = ESYS_TR_NONE;
  return esys.call("TPM2_EvictControl", [&](ESYS_CONTEXT* context) {
    return Esys_EvictControl(context, ESYS_TR_RH_OWNER, object->handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE,
                             ESYS_TR_NONE, handle, &none);
  });
}

Result<std::optional<Object>> find(Esys& esys, TPM2_HANDLE handle) {
  ESYS_TR reference = ESYS_TR_NONE;
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_ReadPublic", [&](ESYS_CONTEXT* context) {
    return Esys_TR_FromTPMPublic(context, handle, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &reference);
  }));
  switch (plain_code(rc)) {
    case TPM2_RC_SUCCESS:
      return std::optional<Object>(Object(esys, reference, Object::Kind::Persistent));
    case TPM2_RC_HANDLE:
    case TPM2_RC_HIERARCHY:  // its hierarchy is disabled
      return std::optional<Object>();
    default:
      return to_error("TPM2_ReadPublic", rc);
  }
}

Result<Bytes> read_public(Esys& esys, const Object& object) {
  TPM2B_PUBLIC* area = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_ReadPublic", [&](ESYS_CONTEXT* context) {
    return Esys_ReadPublic(context, object.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area, nullptr,
                           nullptr);
  }));
  const EsysPtr<TPM2B_PUBLIC> owned(area);
  return marshal_public(owned->publicArea);
}

Result<Bytes> name_of(Esys& esys, const Object& object) {
  TPM2B_NAME* name = nullptr;
  const TSS2_RC rc = Esys_TR_GetName(esys.context(), object.handle(), &name);
  if (rc != TSS2_RC_SUCCESS) return to_error("Esys_TR_GetName", rc);
  const EsysPtr<TPM2B_NAME> owned(name);
  return Bytes(name->name, name->name + name->size);
}

Result<> set_auth(Esys& esys, const Object& object, BytesView auth) {
  TPM2B_AUTH value{};
  if (auth.size() > sizeof value.buffer) return Error(ErrorCode::Internal, "auth value too long");
  value.size = static_cast<std::uint16_t>(auth.size());
  std::copy(auth.begin(), auth.end(), value.buffer);
  const TSS2_RC rc = Esys_TR_SetAuth(esys.context(), object.handle(), &value);
  OPENSSL_cleanse(&value, sizeof value);
  if (rc != TSS2_RC_SUCCESS) return to_error("Esys_TR_SetAuth", rc);
  return {};
}

}  // namespace vtpm::tss
