// SPDX-License-Identifier: Apache-2.0
// TPM 2.0 commands as bytes, for tests of what handles bytes. Password authorizations are empty.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/tpm/header.h>

#include <initializer_list>
#include <string_view>

namespace vtpm::test::wire {

inline constexpr std::uint32_t kOwner = 0x40000001, kNull = 0x40000007, kPassword = 0x40000009,
                               kLockout = 0x4000000a, kEndorsement = 0x4000000b, kPlatform = 0x4000000c;

// One session in an authorization area.
struct Auth {
  std::uint32_t handle = kPassword;
  std::uint8_t attributes = 1;  // continueSession
  Bytes hmac = {};
};

inline Bytes command(std::uint32_t code, std::initializer_list<std::uint32_t> handles,
                     std::initializer_list<Auth> auths, BytesView parameters = {}) {
  Bytes out;
  put_be<std::uint16_t>(out, auths.size() == 0 ? 0x8001 : 0x8002);
  put_be<std::uint32_t>(out, 0);
  put_be(out, code);
  for (const std::uint32_t handle : handles)
    put_be(out, handle);
  if (auths.size() != 0) {
    Bytes area;
    for (const Auth& auth : auths) {
      put_be(area, auth.handle);
      put_be<std::uint16_t>(area, 0);
      area.push_back(auth.attributes);
      put_be<std::uint16_t>(area, static_cast<std::uint16_t>(auth.hmac.size()));
      put(area, auth.hmac);
    }
    put_be<std::uint32_t>(out, static_cast<std::uint32_t>(area.size()));
    put(out, area);
  }
  put(out, parameters);
  for (std::size_t i = 0; i < 4; ++i)
    out[2 + i] = static_cast<std::uint8_t>(out.size() >> (24 - 8 * i));
  return out;
}

template <class... U32>
Bytes u32s(U32... values) {
  Bytes out;
  (put_be(out, std::uint32_t{values}), ...);
  return out;
}
inline Bytes sized(BytesView bytes) {
  Bytes out;
  put_be<std::uint16_t>(out, static_cast<std::uint16_t>(bytes.size()));
  put(out, bytes);
  return out;
}
inline Bytes join(std::initializer_list<BytesView> parts) {
  Bytes out;
  for (const BytesView part : parts)
    put(out, part);
  return out;
}

// An HMAC key: its Name depends on the hierarchy and on `unique`.
inline Bytes create_primary(std::uint32_t hierarchy, std::string_view unique) {
  const Bytes type = {0x00, 0x08, 0x00, 0x0b, 0x00, 0x04, 0x00, 0x72, 0x00, 0x00, 0x00, 0x05, 0x00, 0x0b};
  const Bytes sensitive = {0, 4, 0, 0, 0, 0};
  const Bytes rest = {0, 0, 0, 0, 0, 0};  // outsideInfo, creationPCR
  return command(0x131, {hierarchy}, {{}},
                 join({sensitive, sized(join({type, sized(as_bytes(unique))})), rest}));
}
// An ECC storage key, to create others under.
inline Bytes create_parent(std::uint32_t hierarchy) {
  const Bytes area = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x72, 0,    0, 0x00, 0x06, 0x00,
                      0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10, 0, 0,    0,    0};
  const Bytes sensitive = {0, 4, 0, 0, 0, 0};
  const Bytes rest = {0, 0, 0, 0, 0, 0};
  return command(0x131, {hierarchy}, {{}}, join({sensitive, sized(area), rest}));
}
inline Bytes read_public(std::uint32_t object) {
  return command(0x173, {object}, {});
}
inline Bytes hash_sequence_start() {
  return command(0x186, {}, {}, Bytes{0, 0, 0x00, 0x0b});
}
inline Bytes sequence_update(std::uint32_t sequence, std::string_view text) {
  return command(0x15c, {sequence}, {{}}, sized(as_bytes(text)));
}
inline Bytes sequence_complete(std::uint32_t sequence, std::string_view text) {
  return command(0x13e, {sequence}, {{}}, join({sized(as_bytes(text)), u32s(kNull)}));
}
inline Bytes flush(std::uint32_t handle) {
  return command(0x165, {}, {}, u32s(handle));
}
inline Bytes context_save(std::uint32_t handle) {
  return command(0x162, {handle}, {});
}
inline Bytes context_load(BytesView context) {
  return command(0x161, {}, {}, context);
}
enum class SessionType : std::uint8_t { Hmac = 0, Policy = 1, Trial = 3 };
inline Bytes start_session(SessionType type, std::uint32_t key = kNull, std::uint32_t bind = kNull) {
  const Bytes nonce = sized(Bytes(16, 0x11));
  const Bytes rest = {0, 0, static_cast<std::uint8_t>(type), 0x00, 0x10, 0x00, 0x0b};
  return command(0x176, {key, bind}, {}, join({nonce, rest}));
}
inline Bytes policy_get_digest(std::uint32_t session) {
  return command(0x189, {session}, {});
}
inline Bytes policy_command_code(std::uint32_t session, std::uint32_t code) {
  return command(0x16c, {session}, {}, u32s(code));
}
inline Bytes get_capability(std::uint32_t capability, std::uint32_t property, std::uint32_t count) {
  return command(0x17a, {}, {}, u32s(capability, property, count));
}
inline Bytes get_random() {
  return command(0x17b, {}, {}, Bytes{0, 8});
}
inline Bytes evict_control(std::uint32_t object, std::uint32_t persistent) {
  return command(0x120, {kOwner, object}, {{}}, u32s(persistent));
}

inline std::uint32_t code_of(BytesView response) {
  return get_be<std::uint32_t>(response, 6);
}
inline std::uint32_t handle_of(BytesView response) {
  return get_be<std::uint32_t>(response, tpm::kHeaderSize);
}
inline Bytes body_of(BytesView response) {
  return {response.begin() + tpm::kHeaderSize, response.end()};
}

}  // namespace vtpm::test::wire
