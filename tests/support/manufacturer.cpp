// SPDX-License-Identifier: Apache-2.0
#include "tests/support/manufacturer.h"

#include <vtpm/tpm/attest.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <tss2/tss2_mu.h>

#include <cstdlib>

namespace vtpm::test {
namespace {

constexpr long kYear = 365L * 24 * 3600;
constexpr int kCoordinate = 32;

// A test's own material that cannot be made is no test result.
void require(bool condition) {
  if (!condition) std::abort();
}

template <class Write>
std::string pem_of(Write write) {
  BIO* memory = BIO_new(BIO_s_mem());
  require(memory != nullptr && write(memory) == 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(memory, &text);
  std::string out(text, static_cast<std::size_t>(size));
  BIO_free(memory);
  return out;
}

void set_name(X509_NAME* name, const char* text) {
  require(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(text),
                                     -1, -1, 0) == 1);
}

X509* make_certificate(EVP_PKEY* subject, const char* name, EVP_PKEY* issuer, bool is_ca) {
  X509* certificate = X509_new();
  require(certificate != nullptr && X509_set_version(certificate, X509_VERSION_3) == 1);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), is_ca ? 1 : 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -20 * kYear);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 20 * kYear);
  set_name(X509_get_subject_name(certificate), name);
  set_name(X509_get_issuer_name(certificate), "Test TPM CA");
  require(X509_set_pubkey(certificate, subject) == 1);
  X509_EXTENSION* basic = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints,
                                              is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  require(basic != nullptr && X509_add_ext(certificate, basic, -1) == 1);
  X509_EXTENSION_free(basic);
  require(X509_sign(certificate, issuer, EVP_sha256()) > 0);
  return certificate;
}

TPM2B_ECC_PARAMETER coordinate(const EVP_PKEY* key, const char* name) {
  BIGNUM* number = nullptr;
  require(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  TPM2B_ECC_PARAMETER out{};
  out.size = kCoordinate;
  require(BN_bn2binpad(number, out.buffer, kCoordinate) == kCoordinate);
  BN_free(number);
  return out;
}

Bytes ek_area(const EVP_PKEY* key) {
  TPMT_PUBLIC area{};
  area.type = TPM2_ALG_ECC;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT;
  auto& ecc = area.parameters.eccDetail;
  ecc.symmetric.algorithm = TPM2_ALG_AES;
  ecc.symmetric.keyBits.aes = 128;
  ecc.symmetric.mode.aes = TPM2_ALG_CFB;
  ecc.scheme.scheme = TPM2_ALG_NULL;
  ecc.curveID = TPM2_ECC_NIST_P256;
  ecc.kdf.scheme = TPM2_ALG_NULL;
  area.unique.ecc.x = coordinate(key, OSSL_PKEY_PARAM_EC_PUB_X);
  area.unique.ecc.y = coordinate(key, OSSL_PKEY_PARAM_EC_PUB_Y);
  Bytes bytes(sizeof area);
  std::size_t size = 0;
  require(Tss2_MU_TPMT_PUBLIC_Marshal(&area, bytes.data(), bytes.size(), &size) == TSS2_RC_SUCCESS);
  bytes.resize(size);
  return bytes;
}

}  // namespace

struct KeyPair::State {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_PKEY_free(key); }
};

KeyPair::KeyPair() : state_(std::make_shared<State>()) {
  require(state_->key != nullptr);
}

std::string KeyPair::private_pem() const {
  return pem_of([this](BIO* out) {
    return PEM_write_bio_PrivateKey(out, state_->key, nullptr, nullptr, 0, nullptr, nullptr);
  });
}

std::string KeyPair::public_pem() const {
  return pem_of([this](BIO* out) { return PEM_write_bio_PUBKEY(out, state_->key); });
}

TestManufacturer::TestManufacturer() {
  X509* certificate = make_certificate(key_.state().key, "Test TPM CA", key_.state().key, true);
  pem_ = pem_of([certificate](BIO* out) { return PEM_write_bio_X509(out, certificate); });
  X509_free(certificate);
}

TestEk TestManufacturer::make_ek() const {
  const KeyPair key;
  X509* certificate = make_certificate(key.state().key, "Test TPM", key_.state().key, false);
  TestEk ek{ek_area(key.state().key), {}};
  const int size = i2d_X509(certificate, nullptr);
  require(size > 0);
  ek.certificate.resize(static_cast<std::size_t>(size));
  unsigned char* out = ek.certificate.data();
  i2d_X509(certificate, &out);
  X509_free(certificate);
  return ek;
}

evidence::SignedEnrolment enrol(const TestEk& ek, const Bytes& ak_public, const KeyPair& authority,
                                std::uint64_t time) {
  const Bytes secret(32, 9);
  const evidence::PendingEnrolment pending{
      {ek.public_area, ek.certificate, ak_public}, {}, tpm::sha256(secret)};
  const std::string key = authority.private_pem();
  return evidence::finish_enrolment(pending, {tpm::name_of_public(ak_public).value(), secret},
                                    Secret(Bytes(key.begin(), key.end())), time)
      .value();
}

}  // namespace vtpm::test
