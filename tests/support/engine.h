// SPDX-License-Identifier: Apache-2.0
// A real zygote with real engines for tests, and the few TPM commands that tests give them.
#pragma once

#include "daemon/ipc/engine_link.h"

#include <vtpm/tpm/digest.h>
#include <vtpm/tpm/header.h>

#include <unistd.h>

#include <memory>
#include <string>

namespace vtpm::test {

inline std::unique_ptr<ipc::Zygote> start_zygote() {
  auto zygote = ipc::Zygote::start(std::string(VTPM_BIN_DIR) + "/vtpm-engine", STDERR_FILENO);
  if (zygote) return std::move(*zygote);
  std::fprintf(stderr, "%s\n", zygote.error().context.c_str());
  std::abort();
}

// A command without sessions.
inline Bytes command(std::uint32_t code, BytesView rest = {}) {
  Bytes out;
  put_be<std::uint16_t>(out, 0x8001);
  put_be<std::uint32_t>(out, static_cast<std::uint32_t>(10 + rest.size()));
  put_be<std::uint32_t>(out, code);
  put(out, rest);
  return out;
}

// Appends integers big-endian, and bytes.
class Writer {
 public:
  template <std::unsigned_integral T>
  Writer& add(T value) {
    put_be(bytes_, value);
    return *this;
  }
  Writer& add(BytesView more) {
    put(bytes_, more);
    return *this;
  }
  operator BytesView() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }

 private:
  Bytes bytes_;
};

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

// A command with the empty password for `handles` handles with authorization (one here).
inline Bytes authorized(u32 code, u32 handle, BytesView parameters) {
  Bytes out;
  put_be<u16>(out, 0x8002);
  put_be<u32>(out, static_cast<u32>(10 + 4 + 4 + 9 + parameters.size()));
  put_be<u32>(out, code);
  put_be<u32>(out, handle);
  put_be<u32>(out, 9);
  put_be<u32>(out, 0x40000009);  // TPM_RS_PW
  put_be<u16>(out, 0);
  out.push_back(0);
  put_be<u16>(out, 0);
  put(out, parameters);
  return out;
}

inline Bytes startup_clear() {
  return command(0x144, Writer().add(u16{0}));
}
inline Bytes get_random(u16 count) {
  return command(0x17b, Writer().add(count));
}
inline Bytes pcr_extend(u32 pcr, const tpm::Sha256& digest) {
  return authorized(0x182, pcr, Writer().add(u32{1}).add(u16{0x000b}).add(BytesView(digest)));
}
inline Bytes pcr_read(unsigned pcr) {
  Bytes select(3);
  select[pcr / 8] = static_cast<u8>(1U << (pcr % 8));
  return command(0x17e, Writer().add(u32{1}).add(u16{0x000b}).add(u8{3}).add(select));
}
// The value in a response to pcr_read.
inline Bytes pcr_value(BytesView response) {
  if (response.size() < 32) return {};
  const auto value = response.last(32);
  return {value.begin(), value.end()};
}
// TPM2_CreatePrimary of a restricted decryption key, ECC P-256, in the hierarchy.
inline Bytes create_primary(u32 hierarchy) {
  Writer area;
  area.add(u16{0x0023})
      .add(u16{0x000b})
      .add(u32{0x00030072})
      .add(u16{0});                                         // ECC, SHA-256, attributes, no policy
  area.add(u16{0x0006}).add(u16{128}).add(u16{0x0043});     // AES-128-CFB
  area.add(u16{0x0010}).add(u16{0x0003}).add(u16{0x0010});  // no scheme, P-256, no KDF
  area.add(u16{0}).add(u16{0});                             // unique
  Writer parameters;
  parameters.add(u16{4}).add(u16{0}).add(u16{0});  // inSensitive: empty auth, no data
  parameters.add(static_cast<u16>(area.size())).add(area);
  parameters.add(u16{0}).add(u32{0});  // outsideInfo, creationPCR
  return authorized(0x131, hierarchy, parameters);
}
// Likewise RSA of so many bits, made from `unique`: each other one is another key, and takes long.
inline Bytes create_rsa_primary(u32 hierarchy, u16 bits, u32 unique) {
  Writer area;
  area.add(u16{0x0001}).add(u16{0x000b}).add(u32{0x00030072}).add(u16{0});
  area.add(u16{0x0006}).add(u16{128}).add(u16{0x0043}).add(u16{0x0010}).add(bits).add(u32{0});
  Bytes seed(bits / 8U);
  for (std::size_t i = 0; i < 4; ++i)
    seed[i] = static_cast<u8>(unique >> (8 * i));
  area.add(static_cast<u16>(seed.size())).add(BytesView(seed));
  Writer parameters;
  parameters.add(u16{4}).add(u16{0}).add(u16{0});
  parameters.add(static_cast<u16>(area.size())).add(area);
  parameters.add(u16{0}).add(u32{0});
  return authorized(0x131, hierarchy, parameters);
}
inline constexpr u32 kEndorsement = 0x4000000b;
inline constexpr u32 kOwner = 0x40000001;

inline u32 code_of(BytesView response) {
  const auto header = tpm::parse_response(response);
  return header ? header->code : 0xffffffff;
}
inline u32 handle_in(BytesView response) {
  return response.size() >= 14 ? get_be<u32>(response, 10) : 0;
}
// The TPM2B_PUBLIC's contents in a response to create_primary.
inline Bytes public_in(BytesView response) {
  if (response.size() < 20) return {};
  const auto size = get_be<u16>(response, 18);
  if (response.size() < 20U + size) return {};
  const auto area = response.subspan(20, size);
  return {area.begin(), area.end()};
}

// The response, or its absence as a bare Failure header.
inline Bytes run(ipc::EngineLink& link, BytesView command_bytes,
                 tpm::Locality locality = tpm::Locality::tenant()) {
  auto response = link.transmit(locality, command_bytes);
  if (response) return std::move(*response);
  std::fprintf(stderr, "transmit: %s\n", response.error().context.c_str());
  return {};
}

}  // namespace vtpm::test
