// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/preload.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>

#include <array>

namespace vtpm::engine {
namespace {

constexpr std::array kDigests = {"SHA1", "SHA256", "SHA384", "SHA512"};
constexpr std::array kCiphers = {"AES-128-CFB",      "AES-256-CFB",      "AES-128-ECB",
                                 "AES-256-ECB",      "AES-128-CBC",      "AES-256-GCM",
                                 "CAMELLIA-128-CFB", "CAMELLIA-256-CFB", "DES-EDE3-CFB"};
constexpr std::array kCurves = {NID_X9_62_prime256v1, NID_secp384r1};

}  // namespace

Result<> preload_crypto() {
  if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS |
                              OPENSSL_INIT_ADD_ALL_CIPHERS | OPENSSL_INIT_ADD_ALL_DIGESTS,
                          nullptr) != 1)
    return Error(ErrorCode::Configuration, "OpenSSL does not start; is openssl.cnf right?");
  for (const char* name : kDigests) {
    EVP_MD* digest = EVP_MD_fetch(nullptr, name, nullptr);
    if (digest == nullptr) return Error(ErrorCode::Configuration, std::string("OpenSSL has no ") + name);
    EVP_MD_free(digest);
  }
  // Not every build of OpenSSL has every cipher, nor every TPM uses them.
  for (const char* name : kCiphers)
    EVP_CIPHER_free(EVP_CIPHER_fetch(nullptr, name, nullptr));
  for (const int curve : kCurves)
    EC_GROUP_free(EC_GROUP_new_by_curve_name(curve));
  ERR_clear_error();
  return {};
}

}  // namespace vtpm::engine
