// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/secret.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <sys/mman.h>

namespace vtpm {

Result<Secret> Secret::random(std::size_t size) {
  Bytes bytes(size);
  if (RAND_priv_bytes(bytes.data(), static_cast<int>(size)) != 1)
    return Error(ErrorCode::Internal, "OpenSSL has no random bytes");
  return Secret(std::move(bytes));
}

Secret::Secret(Bytes&& bytes) : bytes_(std::move(bytes)) {
  // Best effort: swapping is the operator's to forbid where RLIMIT_MEMLOCK is 0.
  (void)::mlock(bytes_.data(), bytes_.size());
}

Secret::Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) {
  other.bytes_.clear();
}

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    bytes_ = std::move(other.bytes_);
    other.bytes_.clear();
  }
  return *this;
}

Secret::~Secret() {
  wipe();
}

void Secret::wipe() noexcept {
  if (bytes_.empty()) return;
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  (void)::munlock(bytes_.data(), bytes_.size());
}

}  // namespace vtpm
