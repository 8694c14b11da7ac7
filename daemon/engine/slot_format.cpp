// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/slot_format.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <memory>

namespace vtpm::engine {
namespace {

constexpr std::string_view kMagic = "VTPMSLOT";
constexpr std::uint32_t kVersion = 1;
constexpr std::string_view kKeyLabel = "vtpm slot 1";
constexpr std::size_t kFailedTriesSize = 4;

// Where the header's fields are.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kLengthAt = 12;
constexpr std::size_t kSequenceAt = 16;
constexpr std::size_t kIdAt = 24;
constexpr std::size_t kNonceAt = 32;
constexpr std::size_t kNonceSize = kSlotHeaderSize - kNonceAt;

using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

// Wiped when it goes out of scope.
struct CommitKey {
  std::array<std::uint8_t, 32> bytes{};
  CommitKey() = default;
  CommitKey(const CommitKey&) = delete;
  CommitKey& operator=(const CommitKey&) = delete;
  ~CommitKey() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
};

// A key for each sequence: a random nonce is then unique enough however often an instance commits (under one
// key, SP 800-38D permits 2^32 of them), also where a machine that was put back repeats a sequence.
bool derive(const SlotOwner& owner, std::uint64_t sequence, CommitKey& key) {
  Bytes message;
  put(message, as_bytes(kKeyLabel));
  put(message, owner.id);
  put_be(message, sequence);
  const auto state_key = owner.state_key.view();
  unsigned size = 0;
  return HMAC(EVP_sha256(), state_key.data(), static_cast<int>(state_key.size()), message.data(),
              message.size(), key.bytes.data(), &size) != nullptr &&
         size == key.bytes.size();
}

bool seal(const CommitKey& key, BytesView header, std::uint8_t* text, std::size_t length, std::uint8_t* tag) {
  const CipherContext context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  int size = 0;
  return context &&
         EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.bytes.data(),
                            header.data() + kNonceAt) == 1 &&
         EVP_EncryptUpdate(context.get(), nullptr, &size, header.data(), static_cast<int>(header.size())) ==
             1 &&
         EVP_EncryptUpdate(context.get(), text, &size, text, static_cast<int>(length)) == 1 &&
         EVP_EncryptFinal_ex(context.get(), text + size, &size) == 1 &&
         EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kSlotTagSize, tag) == 1;
}

bool unseal(const CommitKey& key, BytesView header, BytesView sealed, BytesView tag, Bytes& text) {
  const CipherContext context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  text.resize(sealed.size());
  int size = 0;
  // OpenSSL takes the tag as non-const and does not write to it.
  return context &&
         EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.bytes.data(),
                            header.data() + kNonceAt) == 1 &&
         EVP_DecryptUpdate(context.get(), nullptr, &size, header.data(), static_cast<int>(header.size())) ==
             1 &&
         EVP_DecryptUpdate(context.get(), text.data(), &size, sealed.data(),
                           static_cast<int>(sealed.size())) == 1 &&
         EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kSlotTagSize,
                             const_cast<std::uint8_t*>(tag.data())) == 1 &&
         EVP_DecryptFinal_ex(context.get(), text.data() + size, &size) == 1;
}

Slot unusable(std::string_view why) {
  return UnusableSlot{std::string(why)};
}

// "slot a: torn or damaged"
std::string describe(SlotName name, const Slot& slot) {
  const std::string prefix = std::string(to_string(name)) + ": ";
  if (std::holds_alternative<EmptySlot>(slot)) return prefix + "empty";
  if (const auto* bad = std::get_if<UnusableSlot>(&slot)) return prefix + bad->why;
  return prefix + "sequence " + std::to_string(std::get<ValidSlot>(slot).sequence);
}

std::string describe(const Slot& a, const Slot& b) {
  return describe(SlotName::A, a) + "; " + describe(SlotName::B, b);
}

Result<SlotName> newest_of(const Slot& a, const Slot& b) {
  const auto* in_a = std::get_if<ValidSlot>(&a);
  const auto* in_b = std::get_if<ValidSlot>(&b);
  if (in_a == nullptr && in_b == nullptr) return Error(ErrorCode::Corrupt, "both slots: " + describe(a, b));
  if (in_a == nullptr || in_b == nullptr) return in_a != nullptr ? SlotName::A : SlotName::B;
  if (in_a->sequence == in_b->sequence && in_a->content.permanent != in_b->content.permanent)
    return Error(ErrorCode::Corrupt, "both slots: two different states of sequence " +
                                         std::to_string(in_a->sequence) +
                                         ": files of two backups were mixed");
  return in_b->sequence > in_a->sequence ? SlotName::B : SlotName::A;
}

}  // namespace

Result<Bytes> encode_slot(const SlotOwner& owner, std::uint64_t sequence, std::uint32_t failed_tries,
                          BytesView permanent) {
  const std::size_t length = kFailedTriesSize + permanent.size();
  if (length > kMaxSlotContent) return Error(ErrorCode::Internal, "a state that is too large for a slot");
  Bytes slot;
  slot.reserve(kSlotHeaderSize + length + kSlotTagSize);
  put(slot, as_bytes(kMagic));
  put_be(slot, kVersion);
  put_be(slot, static_cast<std::uint32_t>(length));
  put_be(slot, sequence);
  put(slot, owner.id);
  slot.resize(kSlotHeaderSize);
  put_be(slot, failed_tries);
  put(slot, permanent);
  slot.resize(slot.size() + kSlotTagSize);
  CommitKey key;
  std::uint8_t* text = slot.data() + kSlotHeaderSize;
  const bool sealed = RAND_bytes(slot.data() + kNonceAt, kNonceSize) == 1 && derive(owner, sequence, key) &&
                      seal(key, BytesView(slot).first(kSlotHeaderSize), text, length, text + length);
  if (sealed) return slot;
  OPENSSL_cleanse(slot.data(), slot.size());  // it may hold the plaintext
  return Error(ErrorCode::Internal, "OpenSSL cannot encrypt a slot");
}

Slot decode_slot(const SlotOwner& owner, BytesView file) {
  if (file.empty()) return EmptySlot{};
  if (file.size() < kSlotHeaderSize) return unusable("truncated: shorter than its header");
  if (as_text(file.first(kMagic.size())) != kMagic)
    return unusable("no slot's header: torn, withdrawn, or another file");
  const auto version = get_be<std::uint32_t>(file, kVersionAt);
  if (version != kVersion) return unusable("version " + std::to_string(version) + " is not known here");
  const std::size_t length = get_be<std::uint32_t>(file, kLengthAt);
  if (length < kFailedTriesSize || length > kMaxSlotContent) return unusable("damaged: an impossible length");
  if (!std::ranges::equal(file.subspan(kIdAt, owner.id.size()), owner.id))
    return unusable("belongs to another instance");
  if (file.size() < kSlotHeaderSize + length + kSlotTagSize)
    return unusable("truncated: " + std::to_string(file.size()) + " bytes of " +
                    std::to_string(kSlotHeaderSize + length + kSlotTagSize));
  const auto sequence = get_be<std::uint64_t>(file, kSequenceAt);
  CommitKey key;
  Bytes text;
  if (!derive(owner, sequence, key) ||
      !unseal(key, file.first(kSlotHeaderSize), file.subspan(kSlotHeaderSize, length),
              file.subspan(kSlotHeaderSize + length, kSlotTagSize), text)) {
    OPENSSL_cleanse(text.data(), text.size());
    return unusable("torn or damaged, or of another state key: its tag does not match");
  }
  SlotContent content{get_be<std::uint32_t>(text), Bytes(text.begin() + kFailedTriesSize, text.end())};
  OPENSSL_cleanse(text.data(), text.size());
  return ValidSlot{sequence, std::move(content)};
}

std::string_view to_string(SlotName name) noexcept {
  return name == SlotName::A ? "slot a" : "slot b";
}

Result<Choice> choose_slot(const Slot& a, const Slot& b, std::uint64_t least_sequence) {
  if (std::holds_alternative<EmptySlot>(a) && std::holds_alternative<EmptySlot>(b)) {
    if (least_sequence == 0) return Choice{std::nullopt, {}};
    return Error(ErrorCode::Corrupt,
                 "both slots: empty, although sequence " + std::to_string(least_sequence) + " was committed");
  }
  VTPM_TRY(const SlotName newest, newest_of(a, b));
  const Slot& chosen = newest == SlotName::A ? a : b;
  const Slot& other = newest == SlotName::A ? b : a;
  const auto sequence = std::get<ValidSlot>(chosen).sequence;
  if (sequence < least_sequence)
    return Error(ErrorCode::Corrupt, "rolled back: " + describe(a, b) + "; but sequence " +
                                         std::to_string(least_sequence) + " was committed");
  Choice choice{newest, {}};
  if (std::holds_alternative<UnusableSlot>(other))
    choice.remark = describe(a, b) + ": the TPM continues from " + std::string(to_string(newest));
  return choice;
}

}  // namespace vtpm::engine
