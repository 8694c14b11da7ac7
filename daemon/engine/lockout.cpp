// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/lockout.h"

#include "daemon/engine/log.h"
#include "daemon/engine/tpm_commands.h"

#include <string>

namespace vtpm::engine {
namespace {

// Part 2: 6.5.2 (TPM_CC), 6.13 (TPM_PT), 7.4 (TPM_RH), 8.5 (TPMA_OBJECT), 8.6 (TPMA_PERMANENT).
constexpr std::uint32_t kGetCapability = 0x17a;
constexpr std::uint32_t kDictionaryAttackLockReset = 0x139;
constexpr std::uint32_t kCreatePrimary = 0x131;
constexpr std::uint32_t kHmac = 0x155;
constexpr std::uint32_t kFlushContext = 0x165;
constexpr std::uint32_t kCapTpmProperties = 6;
constexpr std::uint32_t kPtPermanent = 0x200;
constexpr std::uint32_t kPtLockoutCounter = 0x20e;
constexpr std::uint32_t kLockoutAuthSet = 1U << 2;
constexpr std::uint32_t kRhNull = 0x40000007;
constexpr std::uint32_t kRhLockout = 0x4000000a;
constexpr std::uint32_t kRsPassword = 0x40000009;
// A keyedHash object that makes HMACs, with a password and without noDA.
constexpr std::uint32_t kSignByPassword = 0x00040072;
constexpr std::uint16_t kAlgKeyedHash = 0x0008;
constexpr std::uint16_t kAlgHmac = 0x0005;
constexpr std::uint16_t kAlgNull = 0x0010;

template <class... Integers>
Bytes fields(Integers... values) {
  Bytes out;
  (put_be(out, values), ...);
  return out;
}

Bytes command(tpm::Tag tag, std::uint32_t code, BytesView rest) {
  Bytes out = fields(static_cast<std::uint16_t>(tag),
                     static_cast<std::uint32_t>(tpm::kHeaderSize + rest.size()), code);
  put(out, rest);
  return out;
}

// A command whose one handle is authorized by an empty password.
Bytes authorized(std::uint32_t code, std::uint32_t handle, BytesView parameters) {
  Bytes rest =
      fields(handle, std::uint32_t{9}, kRsPassword, std::uint16_t{0}, std::uint8_t{0}, std::uint16_t{0});
  put(rest, parameters);
  return command(tpm::Tag::Sessions, code, rest);
}

std::optional<std::uint32_t> property(const Execute& execute, std::uint32_t which) {
  const Bytes response = execute(
      command(tpm::Tag::NoSessions, kGetCapability, fields(kCapTpmProperties, which, std::uint32_t{1})));
  // header, moreData u8, capability u32, count u32, property u32, value u32
  constexpr std::size_t kPropertyAt = tpm::kHeaderSize + 9;
  if (response_code(response) != 0 || response.size() != kPropertyAt + 8 ||
      get_be<std::uint32_t>(response, kPropertyAt) != which)
    return std::nullopt;
  return get_be<std::uint32_t>(response, kPropertyAt + 4);
}

// A transient object whose password is not empty.
std::optional<std::uint32_t> protected_object(const Execute& execute) {
  const Bytes area = fields(kAlgKeyedHash, tpm::kAlgSha256, kSignByPassword, std::uint16_t{0}, kAlgHmac,
                            tpm::kAlgSha256, std::uint16_t{0});
  Bytes parameters = fields(std::uint16_t{5}, std::uint16_t{1}, std::uint8_t{1}, std::uint16_t{0});
  put_be(parameters, static_cast<std::uint16_t>(area.size()));
  put(parameters, area);
  put(parameters, fields(std::uint16_t{0}, std::uint32_t{0}));  // outsideInfo, creationPCR
  const Bytes response = execute(authorized(kCreatePrimary, kRhNull, parameters));
  if (response_code(response) != 0 || response.size() < tpm::kHeaderSize + 4) return std::nullopt;
  return get_be<std::uint32_t>(response, tpm::kHeaderSize);
}

// Uses the object with a wrong password until that many tries are counted.
bool fail_tries(const Execute& execute, std::uint32_t tries) {
  const auto object = protected_object(execute);
  if (!object) return false;
  const Bytes wrong = authorized(kHmac, *object, fields(std::uint16_t{0}, kAlgNull));
  auto counted = failed_tries(execute);
  // The first use is answered TPM_RC_RETRY, once "used" is noted.
  for (std::uint32_t i = 0; i < tries + 1 && counted && *counted < tries; ++i) {
    (void)execute(wrong);
    counted = failed_tries(execute);
  }
  (void)execute(command(tpm::Tag::NoSessions, kFlushContext, fields(*object)));
  return counted == tries;
}

}  // namespace

std::optional<std::uint32_t> failed_tries(const Execute& execute) {
  return property(execute, kPtLockoutCounter);
}

void take_back_unclean_stop(const Execute& execute, std::uint32_t before) {
  const auto now = failed_tries(execute);
  if (!now || *now != before + 1 || before > kMaxRestoredTries) return;
  const auto permanent = property(execute, kPtPermanent);
  if (!permanent || (*permanent & kLockoutAuthSet) != 0) return;
  if (response_code(execute(authorized(kDictionaryAttackLockReset, kRhLockout, {}))) != 0) return;
  if (before != 0 && !fail_tries(execute, before))
    log_line("after an unclean stop, " + std::to_string(before) + " failed tries could not be counted again");
}

}  // namespace vtpm::engine
