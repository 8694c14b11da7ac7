// SPDX-License-Identifier: Apache-2.0
#include "evidence/authority.h"

#include "tpm/openssl.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <array>
#include <string>

namespace vtpm::evidence {
namespace {

using tpm::Key;
using tpm::Owned;
using Memory = Owned<BIO, BIO_free_all>;
using Digest = Owned<EVP_MD_CTX, EVP_MD_CTX_free>;

constexpr std::size_t kMaxKey = 16 * 1024;

// No terminal is asked for a passphrase.
int no_passphrase(char*, int, int, void*) noexcept {
  return -1;
}

bool is_p256(const Key& key) {
  std::array<char, 64> group{};
  std::size_t size = 0;
  return key && EVP_PKEY_is_a(key.get(), "EC") == 1 &&
         EVP_PKEY_get_group_name(key.get(), group.data(), group.size(), &size) == 1 &&
         std::string_view(group.data(), size) == SN_X9_62_prime256v1;
}

Memory over(BytesView pem) {
  return Memory(pem.size() > kMaxKey ? nullptr : BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// nullptr: none of P-256.
Key public_key_of(std::string_view pem) {
  const Memory memory = over(as_bytes(pem));
  Key key(memory ? PEM_read_bio_PUBKEY(memory.get(), nullptr, no_passphrase, nullptr) : nullptr);
  return is_p256(key) ? std::move(key) : Key();
}

Result<Key> private_key_of(const Secret& pem) {
  const Memory memory = over(pem.view());
  Key key(memory ? PEM_read_bio_PrivateKey(memory.get(), nullptr, no_passphrase, nullptr) : nullptr);
  if (is_p256(key)) return key;
  return Error(ErrorCode::Configuration,
               "the authority's key is not a P-256 private key in PEM without a passphrase (openssl genpkey "
               "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one)");
}

Result<tpm::Sha256> digest_of(const Key& key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(key.get(), &der);
  if (size <= 0) return Error(ErrorCode::Internal, "OpenSSL cannot encode a public key");
  const auto digest = tpm::sha256(BytesView(der, static_cast<std::size_t>(size)));
  OPENSSL_free(der);
  return digest;
}

}  // namespace

Result<tpm::Sha256> authority_digest(std::string_view public_key) {
  const Key key = public_key_of(public_key);
  if (!key) return Error(ErrorCode::Malformed, "not a P-256 public key in PEM");
  return digest_of(key);
}

Result<tpm::Sha256> authority_digest(const Secret& private_key) {
  VTPM_TRY(const Key key, private_key_of(private_key));
  return digest_of(key);
}

bool is_authority(std::string_view public_key) {
  return public_key_of(public_key) != nullptr;
}

Result<Bytes> sign(const Secret& private_key, BytesView message) {
  VTPM_TRY(const Key key, private_key_of(private_key));
  const Digest context(EVP_MD_CTX_new());
  Bytes signature(static_cast<std::size_t>(EVP_PKEY_get_size(key.get())));
  std::size_t size = signature.size();
  if (!context ||
      EVP_DigestSignInit_ex(context.get(), nullptr, "SHA256", nullptr, nullptr, key.get(), nullptr) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, message.data(), message.size()) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot sign with ECDSA");
  signature.resize(size);
  return signature;
}

Result<> verify(std::string_view public_key, BytesView message, BytesView signature) {
  const Key key = public_key_of(public_key);
  if (!key) return Error(ErrorCode::Malformed, "not a P-256 public key in PEM");
  const Digest context(EVP_MD_CTX_new());
  if (!context ||
      EVP_DigestVerifyInit_ex(context.get(), nullptr, "SHA256", nullptr, nullptr, key.get(), nullptr) != 1)
    return Error(ErrorCode::Internal, "OpenSSL cannot verify ECDSA");
  if (EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(), message.size()) ==
      1)
    return {};
  return Error(ErrorCode::NotVerified, "the signature is not by this key over these bytes");
}

}  // namespace vtpm::evidence
