// SPDX-License-Identifier: Apache-2.0
#include "tpm/public_key.h"

#include "tpm/structure.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>

#include <array>

namespace vtpm::tpm {
namespace {

constexpr std::string_view kType = "TPMT_PUBLIC";
constexpr std::array kCurves = {Curve{TPM2_ECC_NIST_P256, SN_X9_62_prime256v1, 32},
                                Curve{TPM2_ECC_NIST_P384, SN_secp384r1, 48}};
constexpr std::size_t kMinRsaBytes = 256, kMaxRsaBytes = 512;
constexpr std::uint32_t kDefaultExponent = 65537;  // Part 2, 12.2.3.5: 0 stands for it

using Builder = Owned<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free>;

Result<Key> key_from(const char* type, const Builder& builder, bool built) {
  const Owned<OSSL_PARAM, OSSL_PARAM_free> parameters(built ? OSSL_PARAM_BLD_to_param(builder.get())
                                                            : nullptr);
  const Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free> context(EVP_PKEY_CTX_new_from_name(nullptr, type, nullptr));
  if (!parameters || !context || EVP_PKEY_fromdata_init(context.get()) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot make a public key");
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters.get()) != 1)
    return malformed(kType, "not a public key, or not a point of its curve");
  return Key(key);
}

Result<Key> ec_key(const TPMT_PUBLIC& area) {
  VTPM_TRY(const Curve curve, curve_of(area));
  VTPM_TRY(const Bytes x, padded(area.unique.ecc.x, curve.bytes));
  VTPM_TRY(const Bytes y, padded(area.unique.ecc.y, curve.bytes));
  Bytes point{0x04};  // SEC 1, 2.3.3: uncompressed
  put(point, x);
  put(point, y);
  const Builder builder(OSSL_PARAM_BLD_new());
  const bool built =
      builder &&
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve.name, 0) == 1 &&
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size()) ==
          1;
  return key_from("EC", builder, built);
}

Result<Key> rsa_key(const TPMT_PUBLIC& area) {
  const auto& modulus = area.unique.rsa;
  if (modulus.size < kMinRsaBytes || modulus.size > kMaxRsaBytes ||
      area.parameters.rsaDetail.keyBits != modulus.size * 8)
    return malformed(kType, "an RSA key of a size that is not served");
  const std::uint32_t exponent = area.parameters.rsaDetail.exponent;
  const Owned<BIGNUM, BN_free> n(BN_bin2bn(modulus.buffer, modulus.size, nullptr));
  if (n && (BN_num_bits(n.get()) != modulus.size * 8 || BN_is_odd(n.get()) == 0))
    return malformed(kType, "no RSA modulus");
  const Builder builder(OSSL_PARAM_BLD_new());
  const bool built = builder && n &&
                     OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) == 1 &&
                     OSSL_PARAM_BLD_push_uint32(builder.get(), OSSL_PKEY_PARAM_RSA_E,
                                                exponent == 0 ? kDefaultExponent : exponent) == 1;
  return key_from("RSA", builder, built);
}

}  // namespace

Result<TPMT_PUBLIC> parse_public(BytesView tpmt_public) {
  return structure<TPMT_PUBLIC, Tss2_MU_TPMT_PUBLIC_Unmarshal, Tss2_MU_TPMT_PUBLIC_Marshal>(tpmt_public,
                                                                                            kType);
}

bool is_p256(const TPMT_PUBLIC& area) noexcept {
  return area.type == TPM2_ALG_ECC && area.parameters.eccDetail.curveID == TPM2_ECC_NIST_P256;
}

Result<Curve> curve_of(const TPMT_PUBLIC& area) {
  for (const Curve& curve : kCurves)
    if (area.type == TPM2_ALG_ECC && area.parameters.eccDetail.curveID == curve.id) return curve;
  return malformed(kType, "not a P-256 or P-384 key");
}

Result<Bytes> padded(const TPM2B_ECC_PARAMETER& coordinate, std::size_t size) {
  if (coordinate.size > size) return malformed(kType, "coordinates longer than the curve's");
  Bytes out(size - coordinate.size, 0);
  put(out, {coordinate.buffer, coordinate.size});
  return out;
}

Result<Key> make_key(const TPMT_PUBLIC& area) {
  if (area.type == TPM2_ALG_RSA) return rsa_key(area);
  return ec_key(area);
}

}  // namespace vtpm::tpm
