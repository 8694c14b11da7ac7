// SPDX-License-Identifier: Apache-2.0
#include "tpm/openssl.h"
#include "tpm/public_key.h"
#include "tpm/structure.h"

#include <vtpm/tpm/attest.h>
#include <vtpm/tpm/constants.h>

#include <openssl/ecdsa.h>
#include <openssl/pem.h>

namespace vtpm::tpm {
namespace {

constexpr std::size_t kP256Bytes = 32;

Result<Key> p256_key(BytesView tpmt_public) {
  VTPM_TRY(const TPMT_PUBLIC area, parse_public(tpmt_public));
  if (!is_p256(area)) return malformed("TPMT_PUBLIC", "not a P-256 key");
  return make_key(area);
}

// The DER form of an ECDSA signature, as OpenSSL takes it.
Result<Bytes> ecdsa_der(BytesView tpmt_signature) {
  constexpr std::string_view kType = "TPMT_SIGNATURE";
  VTPM_TRY(const auto signature,
           (structure<TPMT_SIGNATURE, Tss2_MU_TPMT_SIGNATURE_Unmarshal, Tss2_MU_TPMT_SIGNATURE_Marshal>(
               tpmt_signature, kType)));
  const auto& ecdsa = signature.signature.ecdsa;
  if (signature.sigAlg != TPM2_ALG_ECDSA || ecdsa.hash != TPM2_ALG_SHA256)
    return malformed(kType, "not ECDSA with SHA-256");
  if (ecdsa.signatureR.size > kP256Bytes || ecdsa.signatureS.size > kP256Bytes)
    return malformed(kType, "numbers longer than the curve's");
  const Owned<ECDSA_SIG, ECDSA_SIG_free> pair(ECDSA_SIG_new());
  Owned<BIGNUM, BN_free> r(BN_bin2bn(ecdsa.signatureR.buffer, ecdsa.signatureR.size, nullptr));
  Owned<BIGNUM, BN_free> s(BN_bin2bn(ecdsa.signatureS.buffer, ecdsa.signatureS.size, nullptr));
  if (!pair || !r || !s || ECDSA_SIG_set0(pair.get(), r.get(), s.get()) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot make an ECDSA signature");
  // set0 took both.
  (void)r.release();
  (void)s.release();
  const int size = i2d_ECDSA_SIG(pair.get(), nullptr);
  if (size <= 0) return Error(ErrorCode::Internal, "OpenSSL cannot encode an ECDSA signature");
  Bytes der(static_cast<std::size_t>(size));
  unsigned char* out = der.data();
  i2d_ECDSA_SIG(pair.get(), &out);
  return der;
}

// The PCRs of a selection: one bank, SHA-256, indices below kPcrCount.
Result<std::vector<unsigned>> selected_pcrs(const TPML_PCR_SELECTION& list) {
  constexpr std::string_view kType = "TPML_PCR_SELECTION";
  if (list.count != 1) return malformed(kType, "not exactly one bank");
  const auto& bank = list.pcrSelections[0];
  if (bank.hash != TPM2_ALG_SHA256) return malformed(kType, "another bank than SHA-256");
  std::vector<unsigned> pcrs;
  for (unsigned i = 0; i < bank.sizeofSelect * 8U; ++i)
    if (bank.pcrSelect[i / 8] >> (i % 8) & 1) pcrs.push_back(i);
  if (!pcrs.empty() && pcrs.back() >= kPcrCount) return malformed(kType, "a PCR above 23");
  return pcrs;
}

}  // namespace

Sha256 pcr_digest(const PcrValues& values) noexcept {
  Bytes all;
  for (const auto& [index, value] : values)
    put(all, value);
  return sha256(all);
}

Result<Bytes> name_of_public(BytesView tpmt_public) {
  VTPM_TRY(const TPMT_PUBLIC area, parse_public(tpmt_public));
  if (area.nameAlg != TPM2_ALG_SHA256) return malformed("TPMT_PUBLIC", "nameAlg is not SHA-256");
  Bytes name;
  put_be(name, kAlgSha256);
  put(name, sha256(tpmt_public));
  return name;
}

Result<> check_attestation_key(BytesView tpmt_public) {
  VTPM_TRY(const TPMT_PUBLIC area, parse_public(tpmt_public));
  constexpr TPMA_OBJECT kNeeded = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_FIXEDTPM |
                                  TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;
  const auto& ecc = area.parameters.eccDetail;
  if (area.nameAlg != TPM2_ALG_SHA256) return malformed("attestation key", "nameAlg is not SHA-256");
  if (!is_p256(area)) return malformed("attestation key", "not a P-256 key");
  if (ecc.scheme.scheme != TPM2_ALG_ECDSA || ecc.scheme.details.ecdsa.hashAlg != TPM2_ALG_SHA256)
    return malformed("attestation key", "its scheme is not ECDSA with SHA-256");
  if ((area.objectAttributes & kNeeded) != kNeeded || area.objectAttributes & TPMA_OBJECT_DECRYPT)
    return malformed("attestation key",
                     "not a restricted signing key that was made in its TPM and cannot leave it");
  return {};
}

Result<Quote> parse_quote(BytesView tpms_attest) {
  VTPM_TRY(const auto attest,
           (structure<TPMS_ATTEST, Tss2_MU_TPMS_ATTEST_Unmarshal, Tss2_MU_TPMS_ATTEST_Marshal>(
               tpms_attest, "TPMS_ATTEST")));
  if (attest.magic != TPM2_GENERATED_VALUE || attest.type != TPM2_ST_ATTEST_QUOTE)
    return malformed("TPMS_ATTEST", "not a quote");
  const auto& said = attest.attested.quote;
  VTPM_TRY(std::vector<unsigned> pcrs, selected_pcrs(said.pcrSelect));
  return Quote{Bytes(attest.extraData.buffer, attest.extraData.buffer + attest.extraData.size),
               attest.clockInfo.clock,
               attest.clockInfo.resetCount,
               attest.clockInfo.restartCount,
               attest.clockInfo.safe == TPM2_YES,
               attest.firmwareVersion,
               std::move(pcrs),
               Bytes(said.pcrDigest.buffer, said.pcrDigest.buffer + said.pcrDigest.size)};
}

Result<> verify_signature(BytesView tpmt_public, BytesView message, BytesView tpmt_signature) {
  VTPM_TRY(const Key key, p256_key(tpmt_public));
  VTPM_TRY(const Bytes der, ecdsa_der(tpmt_signature));
  const Owned<EVP_MD_CTX, EVP_MD_CTX_free> context(EVP_MD_CTX_new());
  if (!context ||
      EVP_DigestVerifyInit_ex(context.get(), nullptr, "SHA256", nullptr, nullptr, key.get(), nullptr) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot verify ECDSA with SHA-256");
  if (EVP_DigestVerify(context.get(), der.data(), der.size(), message.data(), message.size()) != 1)
    return Error(ErrorCode::NotVerified, "the signature is not by this key over these bytes");
  return {};
}

Result<std::string> public_key_pem(BytesView tpmt_public) {
  VTPM_TRY(const Key key, p256_key(tpmt_public));
  const Owned<BIO, BIO_free_all> memory(BIO_new(BIO_s_mem()));
  if (!memory || PEM_write_bio_PUBKEY(memory.get(), key.get()) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot write a public key");
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &text);
  return std::string(text, static_cast<std::size_t>(size));
}

}  // namespace vtpm::tpm
