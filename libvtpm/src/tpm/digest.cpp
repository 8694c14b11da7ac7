// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/digest.h>

#include <openssl/evp.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace vtpm::tpm {
namespace {

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};

// Fetched once: an implicit fetch for every digest costs more than the hash of a small message.
const EVP_MD* algorithm() noexcept {
  static EVP_MD* const fetched = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return fetched;
}

}  // namespace

Sha256 sha256(std::initializer_list<BytesView> parts) noexcept {
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  Sha256 digest;
  bool good = context && EVP_DigestInit_ex2(context.get(), algorithm(), nullptr) == 1;
  for (const auto part : parts)
    good = good && EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  good = good && EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
  // Only an exhausted memory or a broken libcrypto can do this: no digest may be made up for it.
  if (!good) std::abort();
  return digest;
}

Result<Sha256> sha256_from_hex(std::string_view text) {
  VTPM_TRY(const Bytes bytes, from_hex(text));
  return sha256_from_bytes(bytes);
}

Result<Sha256> sha256_from_bytes(BytesView bytes) {
  Sha256 digest;
  if (bytes.size() != digest.size()) return Error(ErrorCode::Malformed, "a SHA-256 digest has 32 bytes");
  std::ranges::copy(bytes, digest.begin());
  return digest;
}

Sha256 extend(const Sha256& old, const Sha256& digest) noexcept {
  return sha256({old, digest});
}

}  // namespace vtpm::tpm
