// SPDX-License-Identifier: Apache-2.0
#include "daemon/identity/templates.h"

#include <algorithm>
#include <array>

namespace vtpm::identity {
namespace {

constexpr std::uint16_t kCoordinateSize = 32;  // of P-256, bytes

// PolicyA for SHA-256: TPM2_PolicySecret(TPM_RH_ENDORSEMENT). TCG EK Credential Profile, B.3.
constexpr std::array<std::uint8_t, 32> kPolicyA = {
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa};

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

}  // namespace

TPMT_PUBLIC ek_template() noexcept {
  TPMT_PUBLIC area = storage_template(kOwnKey | TPMA_OBJECT_ADMINWITHPOLICY);
  area.authPolicy.size = kPolicyA.size();
  std::ranges::copy(kPolicyA, area.authPolicy.buffer);
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
