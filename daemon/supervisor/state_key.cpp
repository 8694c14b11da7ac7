// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/state_key.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <memory>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kWrappedBytes = kNonceBytes + kStateKeyBytes + kTagBytes;

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const noexcept { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, FreeCipher>;

Error cipher_failed() {
  return {ErrorCode::Internal, "AES-256-GCM failed"};
}

bool is_key(const Secret& key) noexcept {
  return key.view().size() == kStateKeyBytes;
}

}  // namespace

Result<Bytes> wrap_state_key(const Secret& host_key, const std::string& id, const Secret& state_key) {
  if (!is_key(host_key) || !is_key(state_key))
    return Error(ErrorCode::Internal, "a state key of another size than 32 bytes");
  Bytes out(kWrappedBytes);
  std::uint8_t* const nonce = out.data();
  std::uint8_t* const text = nonce + kNonceBytes;
  const Cipher cipher(EVP_CIPHER_CTX_new());
  const BytesView associated = as_bytes(id);
  int n = 0;
  const bool done =
      cipher && RAND_bytes(nonce, kNonceBytes) == 1 &&
      EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, host_key.view().data(), nonce) == 1 &&
      EVP_EncryptUpdate(cipher.get(), nullptr, &n, associated.data(), static_cast<int>(associated.size())) ==
          1 &&
      EVP_EncryptUpdate(cipher.get(), text, &n, state_key.view().data(), kStateKeyBytes) == 1 &&
      EVP_EncryptFinal_ex(cipher.get(), text + n, &n) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, text + kStateKeyBytes) == 1;
  if (!done) return cipher_failed();
  return out;
}

Result<Secret> unwrap_state_key(const Secret& host_key, const std::string& id, BytesView wrapped) {
  if (!is_key(host_key)) return Error(ErrorCode::Internal, "a host key of another size than 32 bytes");
  if (wrapped.size() != kWrappedBytes)
    return Error(ErrorCode::Corrupt, "the wrapped state key has another size");
  const std::uint8_t* const nonce = wrapped.data();
  const std::uint8_t* const text = nonce + kNonceBytes;
  Bytes tag(text + kStateKeyBytes, text + kStateKeyBytes + kTagBytes);
  Bytes key(kStateKeyBytes);
  const Cipher cipher(EVP_CIPHER_CTX_new());
  const BytesView associated = as_bytes(id);
  int n = 0;
  const bool begun =
      cipher &&
      EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, host_key.view().data(), nonce) == 1 &&
      EVP_DecryptUpdate(cipher.get(), nullptr, &n, associated.data(), static_cast<int>(associated.size())) ==
          1 &&
      EVP_DecryptUpdate(cipher.get(), key.data(), &n, text, kStateKeyBytes) == 1 &&
      EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1;
  const bool authentic = begun && EVP_DecryptFinal_ex(cipher.get(), key.data() + n, &n) == 1;
  Secret out(std::move(key));
  if (!begun) return cipher_failed();
  if (!authentic)
    return Error(ErrorCode::Corrupt,
                 "the wrapped state key is damaged, another instance's or another host key's");
  return out;
}

}  // namespace vtpm::supervisor
