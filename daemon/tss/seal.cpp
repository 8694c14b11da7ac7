// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/seal.h"

#include "daemon/tss/marshal.h"
#include "daemon/tss/session.h"

#include <openssl/crypto.h>

#include <algorithm>

namespace vtpm::tss {
namespace {

Result<TPM2B_DIGEST> policy_of(Esys& esys, const Object& parent, const PcrSelection& pcrs) {
  VTPM_TRY(Session trial, Session::start(esys, parent, TPM2_SE_TRIAL));
  VTPM_TRY_VOID(trial.bind_to(pcrs));
  TPM2B_DIGEST* digest = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_PolicyGetDigest", [&](ESYS_CONTEXT* context) {
    return Esys_PolicyGetDigest(context, trial.handle(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest);
  }));
  const EsysPtr<TPM2B_DIGEST> owned(digest);
  return *owned;
}

Result<TPM2B_PUBLIC> template_of(Esys& esys, const Object& parent, const PcrSelection& pcrs) {
  TPM2B_PUBLIC area{};
  auto& sealed = area.publicArea;
  sealed.type = TPM2_ALG_KEYEDHASH;
  sealed.nameAlg = TPM2_ALG_SHA256;
  sealed.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA;
  sealed.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
  if (pcrs.empty()) {
    sealed.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
  } else {
    VTPM_TRY(sealed.authPolicy, policy_of(esys, parent, pcrs));
  }
  return area;
}

}  // namespace

Result<Sealed> seal(Esys& esys, const Object& parent, BytesView data, const PcrSelection& pcrs) {
  SensitiveCreate sensitive;
  auto& content = sensitive.value.sensitive.data;
  if (data.size() > TPM2_MAX_SYM_DATA) return Error(ErrorCode::Internal, "too long to be sealed");
  content.size = static_cast<std::uint16_t>(data.size());
  std::ranges::copy(data, content.buffer);
  VTPM_TRY(const TPM2B_PUBLIC area, template_of(esys, parent, pcrs));
  VTPM_TRY(Session session, Session::start(esys, parent, TPM2_SE_HMAC));
  VTPM_TRY_VOID(session.set(TPMA_SESSION_DECRYPT));
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION creation{};
  TPM2B_PRIVATE* private_area = nullptr;
  TPM2B_PUBLIC* public_area = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_Create", [&](ESYS_CONTEXT* context) {
    return Esys_Create(context, parent.handle(), session.handle(), ESYS_TR_NONE, ESYS_TR_NONE,
                       &sensitive.value, &area, &outside, &creation, &private_area, &public_area, nullptr,
                       nullptr, nullptr);
  }));
  const EsysPtr<TPM2B_PRIVATE> private_owner(private_area);
  const EsysPtr<TPM2B_PUBLIC> public_owner(public_area);
  VTPM_TRY(Bytes marshalled, marshal_public(public_area->publicArea));
  return Sealed{std::move(marshalled),
                Bytes(private_area->buffer, private_area->buffer + private_area->size)};
}

Result<std::variant<Secret, Refused>> unseal(Esys& esys, const Object& parent, const Sealed& sealed,
                                             const PcrSelection& pcrs) {
  using Outcome = std::variant<Secret, Refused>;
  TPM2B_PUBLIC public_area{};
  VTPM_TRY(public_area.publicArea, unmarshal_public(sealed.public_area));
  TPM2B_PRIVATE private_area{};
  if (sealed.private_area.size() > sizeof private_area.buffer)
    return Error(ErrorCode::Malformed, "a private area that is too long");
  private_area.size = static_cast<std::uint16_t>(sealed.private_area.size());
  std::ranges::copy(sealed.private_area, private_area.buffer);
  ESYS_TR handle = ESYS_TR_NONE;
  VTPM_TRY(const TSS2_RC loaded, esys.execute("TPM2_Load", [&](ESYS_CONTEXT* context) {
    return Esys_Load(context, parent.handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &private_area,
                     &public_area, &handle);
  }));
  if (loaded != TSS2_RC_SUCCESS) return Outcome(Refused{loaded});
  const Object object(esys, handle, Object::Kind::Transient);
  VTPM_TRY(Session session, Session::start(esys, parent, pcrs.empty() ? TPM2_SE_HMAC : TPM2_SE_POLICY));
  VTPM_TRY_VOID(session.set(TPMA_SESSION_ENCRYPT));
  if (!pcrs.empty()) VTPM_TRY_VOID(session.bind_to(pcrs));
  TPM2B_SENSITIVE_DATA* data = nullptr;
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_Unseal", [&](ESYS_CONTEXT* context) {
    return Esys_Unseal(context, object.handle(), session.handle(), ESYS_TR_NONE, ESYS_TR_NONE, &data);
  }));
  if (rc != TSS2_RC_SUCCESS) return Outcome(Refused{rc});
  const EsysPtr<TPM2B_SENSITIVE_DATA> owned(data);
  Secret secret(Bytes(data->buffer, data->buffer + data->size));
  OPENSSL_cleanse(data->buffer, data->size);
  return Outcome(std::move(secret));
}

}  // namespace vtpm::tss
