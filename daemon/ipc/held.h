// SPDX-License-Identifier: Apache-2.0
// What the keeper holds, and how its frames name it (FORMATS.md: "Engine frames").
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <compare>

namespace vtpm::ipc {

enum class HeldKind : std::uint8_t {
  Control = 0,    // vtpmd's end of an engine's control socket
  Engine = 1,     // the engine's pidfd
  Container = 2,  // the pidfd of the container's first process
  Node = 3,       // a /dev/fuse or a listening socket that an engine serves
  Cgroup = 4,     // the cgroup.procs of the container's cgroup, in which engines of the instance run
};

// One descriptor. The order is that of Verb::Recall: instance by instance.
struct HeldKey {
  std::uint64_t instance;  // the id's 8 bytes
  HeldKind kind;
  std::uint8_t number;  // tells an instance's nodes apart; 0 for other kinds

  static constexpr std::size_t kSize = 10;  // id, kind u8, number u8
  // clang-tidy 14 takes the comparison with 0 in what the compiler makes of this for a null pointer.
  auto operator<=>(const HeldKey&) const = default;  // NOLINT(modernize-use-nullptr)
};

inline Bytes encode(const HeldKey& key) {
  Bytes out;
  put_be(out, key.instance);
  out.push_back(static_cast<std::uint8_t>(key.kind));
  out.push_back(key.number);
  return out;
}

// Another size or kind: Malformed.
inline Result<HeldKey> decode_held(BytesView bytes) {
  if (bytes.size() != HeldKey::kSize || bytes[8] > static_cast<std::uint8_t>(HeldKind::Cgroup))
    return Error(ErrorCode::Malformed, "keeper frame: not the name of what is held");
  return HeldKey{get_be<std::uint64_t>(bytes), static_cast<HeldKind>(bytes[8]), bytes[9]};
}

}  // namespace vtpm::ipc
