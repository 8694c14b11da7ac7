// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/endorsement_key.h"

#include "daemon/anchor/ek_certificate.h"
#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"
#include "daemon/tss/marshal.h"
#include "daemon/tss/session.h"

#include <vtpm/tpm/ek_certificate.h>

#include <openssl/crypto.h>
#include <tss2/tss2_mu.h>

namespace vtpm::anchor {
namespace {

// Where manufacturers and owners keep EKs (TCG Registry of Reserved TPM 2.0 Handles, 2.3.2).
constexpr TPM2_HANDLE kFirstEk = 0x81010000, kLastEk = 0x8101ffff;

identity::EkProfile profile_of(TPM2_HANDLE index) noexcept {
  switch (index) {
    case kRsa2048Index:
      return identity::EkProfile::Rsa2048;
    case kEccP384Index:
      return identity::EkProfile::EccP384;
    default:
      return identity::EkProfile::EccP256;
  }
}

Result<std::optional<EndorsementKey>> persistent_key(tss::Esys& esys, const Bytes& certificate) {
  VTPM_TRY(const auto handles, tss::handles(esys, kFirstEk, kLastEk));
  for (const TPM2_HANDLE handle : handles) {
    VTPM_TRY(auto object, tss::find(esys, handle));
    if (!object) continue;
    VTPM_TRY(Bytes area, tss::read_public(esys, *object));
    if (tpm::check_certified_key(certificate, area))
      return std::optional(EndorsementKey{std::move(*object), std::move(area), certificate});
  }
  return std::optional<EndorsementKey>();
}

// The policy of the low range's templates; others may be used with their empty auth value.
Result<tss::Session> authorized_session(tss::Esys& esys, const EndorsementKey& ek, const TPMT_PUBLIC& area) {
  if ((area.objectAttributes & TPMA_OBJECT_USERWITHAUTH) != 0) {
    VTPM_TRY(tss::Session session, tss::Session::start(esys, ek.object, TPM2_SE_HMAC));
    return session;
  }
  VTPM_TRY(tss::Session session, tss::Session::start(esys, ek.object, TPM2_SE_POLICY, area.nameAlg));
  auto proven = session.prove(ESYS_TR_RH_ENDORSEMENT);
  if (!proven)
    return Error(ErrorCode::Configuration,
                 "the endorsement hierarchy has an auth value: " + proven.error().context);
  return session;
}

template <class T>
Result<T> unmarshal(BytesView bytes, TSS2_RC (*function)(const std::uint8_t[], std::size_t, std::size_t*, T*),
                    std::string_view what) {
  T value{};
  std::size_t size = 0;
  if (function(bytes.data(), bytes.size(), &size, &value) == TSS2_RC_SUCCESS && size == bytes.size())
    return value;
  return Error(ErrorCode::Malformed, "not a " + std::string(what));
}

// What the TPM answers to a credential that does not fit (Part 3, TPM2_ActivateCredential).
bool is_of_another(TSS2_RC rc) noexcept {
  const TPM2_RC code = tss::plain_code(rc);
  return code == TPM2_RC_INTEGRITY || code == TPM2_RC_VALUE || code == TPM2_RC_SIZE ||
         code == TPM2_RC_ECC_POINT || code == TPM2_RC_INSUFFICIENT;
}

}  // namespace

Result<EndorsementKey> open_endorsement_key(tss::Esys& esys) {
  VTPM_TRY(auto certificate, read_ek_certificate(esys));
  if (!certificate)
    return Error(
        ErrorCode::NotFound,
        "the TPM has no endorsement key certificate that may be read: pin its attestation key instead");
  VTPM_TRY(auto found, persistent_key(esys, certificate->der));
  if (found) return std::move(*found);
  VTPM_TRY(auto made, tss::create_primary(esys, ESYS_TR_RH_ENDORSEMENT,
                                          identity::ek_template(profile_of(certificate->index))));
  if (!tpm::check_certified_key(certificate->der, made.public_area))
    return Error(ErrorCode::Corrupt,
                 "the endorsement key certificate in the TPM is for a key that this TPM does not have");
  return EndorsementKey{std::move(made.object), std::move(made.public_area), std::move(certificate->der)};
}

Result<Secret> activate_credential(tss::Esys& esys, const tss::Object& key, const EndorsementKey& ek,
                                   const tpm::Credential& credential) {
  VTPM_TRY(const TPMT_PUBLIC area, tss::unmarshal_public(ek.public_area));
  VTPM_TRY(const auto object,
           unmarshal<TPM2B_ID_OBJECT>(credential.id_object, &Tss2_MU_TPM2B_ID_OBJECT_Unmarshal,
                                      "TPM2B_ID_OBJECT"));
  VTPM_TRY(const auto secret, unmarshal<TPM2B_ENCRYPTED_SECRET>(credential.encrypted_secret,
                                                                &Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal,
                                                                "TPM2B_ENCRYPTED_SECRET"));
  VTPM_TRY(tss::Session session, authorized_session(esys, ek, area));
  VTPM_TRY_VOID(session.set(TPMA_SESSION_ENCRYPT));
  TPM2B_DIGEST* info = nullptr;
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_ActivateCredential", [&](ESYS_CONTEXT* context) {
    return Esys_ActivateCredential(context, key.handle(), ek.object.handle(), ESYS_TR_PASSWORD,
                                   session.handle(), ESYS_TR_NONE, &object, &secret, &info);
  }));
  if (is_of_another(rc))
    return Error(ErrorCode::Malformed, "the credential was not made for this TPM and this key");
  if (rc != TSS2_RC_SUCCESS) return tss::to_error("TPM2_ActivateCredential", rc);
  const tss::EsysPtr<TPM2B_DIGEST> owned(info);
  Secret given(Bytes(info->buffer, info->buffer + info->size));
  OPENSSL_cleanse(info->buffer, info->size);
  return given;
}

}  // namespace vtpm::anchor
