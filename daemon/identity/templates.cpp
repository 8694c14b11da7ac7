// SPDX-License-Identifier: Apache-2.0
#include "daemon/identity/templates.h"

#include <algorithm>
#include <array>

namespace vtpm::identity {
namespace {

constexpr std::uint16_t kRsaBits = 2048;
constexpr std::uint16_t kCoordinateSize = 32;  // of P-256, bytes

// PolicyA for SHA-256: TPM2_PolicySecret(TPM_RH_ENDORSEMENT). TCG EK Credential Profile, B.3.
constexpr std::array<std::uint8_t, 32> kPolicyA = {
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa};

// PolicyB for SHA-384: PolicyA, or what the NV index of its hash authorizes. B.6.
constexpr std::array<std::uint8_t, 48> kPolicyB = {
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12};

constexpr TPMA_OBJECT kOwnKey =
    TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_RESTRICTED;

// A P-256 key without symmetric algorithm, scheme or KDF, unique zeros.
TPMT_PUBLIC ecc_template(TPMA_OBJECT attributes) noexcept {
  TPMT_PUBLIC area{};
  area.type = TPM2_ALG_ECC;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = attributes;
  auto& ecc = area.parameters.eccDetail;
  ecc.symmetric.algorithm = TPM2_ALG_NULL;
  ecc.scheme.scheme = TPM2_ALG_NULL;
  ecc.curveID = TPM2_ECC_NIST_P256;
  ecc.kdf.scheme = TPM2_ALG_NULL;
  area.unique.ecc.x.size = kCoordinateSize;
  area.unique.ecc.y.size = kCoordinateSize;
  return area;
}

TPMT_PUBLIC storage_template(TPMA_OBJECT attributes) noexcept {
  TPMT_PUBLIC area = ecc_template(attributes | TPMA_OBJECT_DECRYPT);
  auto& symmetric = area.parameters.eccDetail.symmetric;
  symmetric.algorithm = TPM2_ALG_AES;
  symmetric.keyBits.aes = 128;
  symmetric.mode.aes = TPM2_ALG_CFB;
  return area;
}

TPMT_PUBLIC rsa_ek(TPMT_PUBLIC area) noexcept {
  const TPMT_SYM_DEF_OBJECT symmetric = area.parameters.eccDetail.symmetric;
  area.type = TPM2_ALG_RSA;
  area.parameters = {};
  area.parameters.rsaDetail.symmetric = symmetric;
  area.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
  area.parameters.rsaDetail.keyBits = kRsaBits;
  area.unique = {};
  area.unique.rsa.size = kRsaBits / 8;
  return area;
}

TPMT_PUBLIC p384_ek(TPMT_PUBLIC area) noexcept {
  area.nameAlg = TPM2_ALG_SHA384;
  area.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
  area.authPolicy.size = kPolicyB.size();
  std::ranges::copy(kPolicyB, area.authPolicy.buffer);
  area.parameters.eccDetail.symmetric.keyBits.aes = 256;
  area.parameters.eccDetail.curveID = TPM2_ECC_NIST_P384;
  area.unique = {};  // of the high range: empty
  return area;
}

}  // namespace

TPMT_PUBLIC ek_template(EkProfile profile) noexcept {
  TPMT_PUBLIC area = storage_template(kOwnKey | TPMA_OBJECT_ADMINWITHPOLICY);
  if (profile == EkProfile::EccP384) return p384_ek(area);
  area.authPolicy.size = kPolicyA.size();
  std::ranges::copy(kPolicyA, area.authPolicy.buffer);
  if (profile == EkProfile::Rsa2048) return rsa_ek(area);
  return area;
}

TPMT_PUBLIC srk_template() noexcept {
  return storage_template(kOwnKey | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA);
}

TPMT_PUBLIC attestation_key_template(const tpm::Sha256& unique) noexcept {
  TPMT_PUBLIC area =
      ecc_template(kOwnKey | TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT);
  auto& scheme = area.parameters.eccDetail.scheme;
  scheme.scheme = TPM2_ALG_ECDSA;
  scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
  std::ranges::copy(unique, area.unique.ecc.x.buffer);
  return area;
}

TPMT_PUBLIC instance_ak_template() noexcept {
  return attestation_key_template(tpm::sha256(as_bytes("vtpm instance AK v1")));
}

}  // namespace vtpm::identity
