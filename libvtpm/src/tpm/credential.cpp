// SPDX-License-Identifier: Apache-2.0
#include "tpm/openssl.h"
#include "tpm/public_key.h"
#include "tpm/structure.h"

#include <vtpm/tpm/credential.h>

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rsa.h>

#include <array>

namespace vtpm::tpm {
namespace {

constexpr std::size_t kMaxName = 66;  // nameAlg and SHA-512

Error broken(std::string_view what) {
  return {ErrorCode::Internal, "OpenSSL: " + std::string(what)};
}

struct Hash {
  TPM2_ALG_ID id;
  const char* name;
  std::size_t bytes;
};
constexpr std::array kHashes = {Hash{TPM2_ALG_SHA256, "SHA256", 32}, Hash{TPM2_ALG_SHA384, "SHA384", 48}};

Result<Hash> name_hash(const TPMT_PUBLIC& area) {
  for (const Hash& hash : kHashes)
    if (area.nameAlg == hash.id) return hash;
  return malformed("endorsement key", "nameAlg is neither SHA-256 nor SHA-384");
}

// TPMS_RSA_PARMS and TPMS_ECC_PARMS begin with it.
const TPMT_SYM_DEF_OBJECT& symmetric_of(const TPMT_PUBLIC& area) {
  return area.type == TPM2_ALG_RSA ? area.parameters.rsaDetail.symmetric
                                   : area.parameters.eccDetail.symmetric;
}

Result<TPMT_PUBLIC> endorsement_key(BytesView tpmt_public) {
  VTPM_TRY(const TPMT_PUBLIC area, parse_public(tpmt_public));
  constexpr TPMA_OBJECT kNeeded = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM |
                                  TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;
  if ((area.objectAttributes & kNeeded) != kNeeded || area.objectAttributes & TPMA_OBJECT_SIGN_ENCRYPT)
    return malformed("endorsement key",
                     "not a restricted decryption key that was made in its TPM and cannot leave it");
  VTPM_TRY_VOID(name_hash(area));
  VTPM_TRY_VOID(make_key(area));
  const auto& symmetric = symmetric_of(area);
  if (symmetric.algorithm != TPM2_ALG_AES || symmetric.mode.aes != TPM2_ALG_CFB ||
      (symmetric.keyBits.aes != 128 && symmetric.keyBits.aes != 256))
    return malformed("endorsement key", "its symmetric algorithm is not AES-128 or AES-256 in CFB mode");
  return area;
}

BytesView with_null(std::string_view label) {
  return {reinterpret_cast<const std::uint8_t*>(label.data()), label.size() + 1};
}

OSSL_PARAM octets(const char* key, BytesView bytes) {
  return OSSL_PARAM_construct_octet_string(key, const_cast<std::uint8_t*>(bytes.data()), bytes.size());
}

OSSL_PARAM text(const char* key, const char* value) {
  return OSSL_PARAM_construct_utf8_string(key, const_cast<char*>(value), 0);
}

Result<Secret> derive(const char* kdf, const OSSL_PARAM* parameters, std::size_t bytes) {
  const Owned<EVP_KDF, EVP_KDF_free> algorithm(EVP_KDF_fetch(nullptr, kdf, nullptr));
  const Owned<EVP_KDF_CTX, EVP_KDF_CTX_free> context(algorithm ? EVP_KDF_CTX_new(algorithm.get()) : nullptr);
  Bytes out(bytes);
  if (!context || EVP_KDF_derive(context.get(), out.data(), out.size(), parameters) != 1)
    return broken("no key derivation");
  return Secret(std::move(out));
}

// Part 1, 11.4.10.2 (SP 800-108 in counter mode). The label's terminating null is SP 800-108's separator.
Result<Secret> kdf_a(const Hash& hash, const Secret& key, std::string_view label, BytesView context,
                     std::size_t bytes) {
  std::array parameters = {text(OSSL_KDF_PARAM_MODE, "counter"),
                           text(OSSL_KDF_PARAM_MAC, "HMAC"),
                           text(OSSL_KDF_PARAM_DIGEST, hash.name),
                           octets(OSSL_KDF_PARAM_KEY, key.view()),
                           octets(OSSL_KDF_PARAM_SALT, as_bytes(label)),
                           octets(OSSL_KDF_PARAM_INFO, context),
                           OSSL_PARAM_construct_end()};
  return derive("KBKDF", parameters.data(), bytes);
}

// Part 1, 11.4.10.3 (SP 800-56C, one step with a hash): both parties' information are x coordinates.
Result<Secret> kdf_e(const Hash& hash, const Secret& z, std::string_view label, BytesView party_u,
                     BytesView party_v) {
  Bytes info;
  put(info, with_null(label));
  put(info, party_u);
  put(info, party_v);
  std::array parameters = {text(OSSL_KDF_PARAM_DIGEST, hash.name), octets(OSSL_KDF_PARAM_KEY, z.view()),
                           octets(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  return derive("SSKDF", parameters.data(), hash.bytes);
}

void put_2b(Bytes& out, BytesView bytes) {
  put_be(out, static_cast<std::uint16_t>(bytes.size()));
  put(out, bytes);
}

// A seed that the EK's owner alone learns.
struct SharedSeed {
  Secret seed;
  Bytes encrypted;  // TPMU_ENCRYPTED_SECRET
};

// Part 1, B.10.4: OAEP with the EK's nameAlg, and the label with its null.
Result<SharedSeed> rsa_seed(const TPMT_PUBLIC& area, const Hash& hash) {
  VTPM_TRY(const Key key, make_key(area));
  VTPM_TRY(Secret seed, Secret::random(hash.bytes));
  const Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free> context(
      EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
  const std::array parameters = {text(OSSL_ASYM_CIPHER_PARAM_PAD_MODE, OSSL_PKEY_RSA_PAD_MODE_OAEP),
                                 text(OSSL_ASYM_CIPHER_PARAM_OAEP_DIGEST, hash.name),
                                 text(OSSL_ASYM_CIPHER_PARAM_MGF1_DIGEST, hash.name),
                                 octets(OSSL_ASYM_CIPHER_PARAM_OAEP_LABEL, with_null("IDENTITY")),
                                 OSSL_PARAM_construct_end()};
  std::size_t size = area.unique.rsa.size;
  Bytes encrypted(size);
  if (!context || EVP_PKEY_encrypt_init_ex(context.get(), parameters.data()) != 1 ||
      EVP_PKEY_encrypt(context.get(), encrypted.data(), &size, seed.view().data(), seed.view().size()) != 1)
    return malformed("endorsement key", "OpenSSL cannot encrypt with it");
  encrypted.resize(size);
  return SharedSeed{std::move(seed), std::move(encrypted)};
}

Result<Secret> shared_x(const Key& own, const Key& others, std::size_t bytes) {
  const Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free> context(
      EVP_PKEY_CTX_new_from_pkey(nullptr, own.get(), nullptr));
  Bytes z(bytes);
  std::size_t size = z.size();
  if (!context || EVP_PKEY_derive_init(context.get()) != 1 ||
      EVP_PKEY_derive_set_peer(context.get(), others.get()) != 1 ||
      EVP_PKEY_derive(context.get(), z.data(), &size) != 1 || size != bytes)
    return broken("no Diffie-Hellman");
  return Secret(std::move(z));
}

// x || y, as after the 0x04 of SEC 1.
Result<Bytes> coordinates(const Key& key, std::size_t bytes) {
  Bytes point(1 + 2 * bytes);
  std::size_t size = 0;
  if (EVP_PKEY_get_octet_string_param(key.get(), OSSL_PKEY_PARAM_PUB_KEY, point.data(), point.size(),
                                      &size) != 1 ||
      size != point.size())
    return broken("no uncompressed point");
  point.erase(point.begin());
  return point;
}

// Part 1, C.6.4: one pass of Diffie-Hellman with an ephemeral key.
Result<SharedSeed> ecc_seed(const TPMT_PUBLIC& area, const Hash& hash) {
  VTPM_TRY(const Curve curve, curve_of(area));
  VTPM_TRY(const Key key, make_key(area));
  const Key ephemeral(EVP_EC_gen(curve.name));
  if (!ephemeral) return broken("no ephemeral key");
  VTPM_TRY(const Secret z, shared_x(ephemeral, key, curve.bytes));
  VTPM_TRY(const Bytes point, coordinates(ephemeral, curve.bytes));
  VTPM_TRY(const Bytes own_x, padded(area.unique.ecc.x, curve.bytes));
  const auto x = BytesView(point).first(curve.bytes), y = BytesView(point).subspan(curve.bytes);
  VTPM_TRY(Secret seed, kdf_e(hash, z, "IDENTITY", x, own_x));
  Bytes encrypted;
  put_2b(encrypted, x);
  put_2b(encrypted, y);
  return SharedSeed{std::move(seed), std::move(encrypted)};
}

Result<Bytes> encrypt_cfb(const Secret& key, BytesView plain) {
  const Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free> context(EVP_CIPHER_CTX_new());
  const EVP_CIPHER* cipher = key.view().size() == 16 ? EVP_aes_128_cfb128() : EVP_aes_256_cfb128();
  const std::array<std::uint8_t, 16> iv{};
  Bytes out(plain.size());
  int size = 0;
  if (!context || EVP_EncryptInit_ex2(context.get(), cipher, key.view().data(), iv.data(), nullptr) != 1 ||
      EVP_EncryptUpdate(context.get(), out.data(), &size, plain.data(), static_cast<int>(plain.size())) !=
          1 ||
      static_cast<std::size_t>(size) != plain.size())
    return broken("no AES");
  return out;
}

Result<Bytes> hmac(const Hash& hash, const Secret& key, BytesView message) {
  Bytes out(hash.bytes);
  std::size_t size = 0;
  if (EVP_Q_mac(nullptr, "HMAC", nullptr, hash.name, nullptr, key.view().data(), key.view().size(),
                message.data(), message.size(), out.data(), out.size(), &size) == nullptr)
    return broken("no HMAC");
  return out;
}

// Part 1, 24.4 and 24.5: the outer wrapper of a credential.
Result<Bytes> wrap(const TPMT_PUBLIC& area, const Hash& hash, const Secret& seed, BytesView name,
                   const Secret& secret) {
  VTPM_TRY(const Secret key,
           kdf_a(hash, seed, "STORAGE", name, symmetric_of(area).keyBits.aes / std::size_t{8}));
  Bytes sized;
  put_2b(sized, secret.view());
  const Secret plain(std::move(sized));
  VTPM_TRY(const Bytes identity, encrypt_cfb(key, plain.view()));
  VTPM_TRY(const Secret integrity_key, kdf_a(hash, seed, "INTEGRITY", {}, hash.bytes));
  Bytes covered = identity;
  put(covered, name);
  VTPM_TRY(const Bytes integrity, hmac(hash, integrity_key, covered));
  Bytes object;
  put_2b(object, integrity);
  put(object, identity);
  return object;
}

Bytes as_2b(BytesView bytes) {
  Bytes out;
  put_2b(out, bytes);
  return out;
}

}  // namespace

Result<> check_endorsement_key(BytesView tpmt_public) {
  VTPM_TRY_VOID(endorsement_key(tpmt_public));
  return {};
}

Result<Credential> make_credential(BytesView ek_public, BytesView name, const Secret& secret) {
  VTPM_TRY(const TPMT_PUBLIC area, endorsement_key(ek_public));
  VTPM_TRY(const Hash hash, name_hash(area));
  if (name.empty() || name.size() > kMaxName) return malformed("credential", "no Name of an object");
  if (secret.view().empty() || secret.view().size() > hash.bytes)
    return malformed("credential", "a secret has 1 to " + std::to_string(hash.bytes) + " bytes");
  VTPM_TRY(const SharedSeed shared, area.type == TPM2_ALG_RSA ? rsa_seed(area, hash) : ecc_seed(area, hash));
  VTPM_TRY(const Bytes object, wrap(area, hash, shared.seed, name, secret));
  return Credential{as_2b(object), as_2b(shared.encrypted)};
}

}  // namespace vtpm::tpm
