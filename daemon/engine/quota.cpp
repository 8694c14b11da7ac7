// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/quota.h"

#include <vtpm/tpm/header.h>

#include <optional>

namespace vtpm::engine {
namespace {

constexpr std::uint32_t kEvictControl = 0x120;
constexpr std::uint32_t kDefineSpace = 0x12a;
constexpr std::uint32_t kPersistentFirst = 0x81000000;
constexpr std::uint32_t kPersistentLast = 0x81ffffff;
constexpr std::size_t kIndexOverhead = 64;
constexpr std::size_t kLargestObject = 2048;
constexpr std::size_t kCode = 6;  // where the command code stands
constexpr double kNsPerSecond = 1e9;

// Bytes that a client wrote: where they run out there is nothing.
class Cursor {
 public:
  explicit Cursor(BytesView bytes) : rest_(bytes) {}
  bool skip(std::size_t size) {
    if (rest_.size() < size) return false;
    rest_ = rest_.subspan(size);
    return true;
  }
  template <std::unsigned_integral T>
  std::optional<T> take() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    const T value = get_be<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  // A TPM2B, left out; its size.
  std::optional<std::uint16_t> skip_sized() {
    const auto size = take<std::uint16_t>();
    return size && skip(*size) ? size : std::nullopt;
  }
  bool at_end() const noexcept { return rest_.empty(); }

 private:
  BytesView rest_;
};

// The parameters stand after the header, one handle and the authorization area. A session that encrypts the
// first of them leaves its size as it is.
std::size_t growth_of_index(BytesView command) {
  Cursor at(command.subspan(tpm::kHeaderSize));
  if (!at.skip(sizeof(std::uint32_t))) return 0;
  const auto area = at.take<std::uint32_t>();
  if (!area || !at.skip(*area)) return 0;
  const auto auth = at.skip_sized();
  // TPM2B_NV_PUBLIC: its size, nvIndex, nameAlg, attributes, authPolicy, dataSize.
  if (!auth || !at.skip(2 + 4 + 2 + 4)) return 0;
  const auto policy = at.skip_sized();
  const auto data = at.take<std::uint16_t>();
  // Where the command goes on, its sizes are wrong, and the TPM says so.
  if (!policy || !data || !at.at_end()) return 0;
  return kIndexOverhead + *auth + *policy + *data;
}

std::size_t growth_of_object(BytesView command) {
  Cursor at(command.subspan(tpm::kHeaderSize));
  if (!at.skip(sizeof(std::uint32_t))) return 0;
  const auto object = at.take<std::uint32_t>();
  // A persistent one is not made, but removed.
  const bool is_removed = object && *object >= kPersistentFirst && *object <= kPersistentLast;
  return object && !is_removed ? kLargestObject : 0;
}

}  // namespace

TokenBucket::TokenBucket(std::uint64_t per_second, std::uint64_t burst)
    : ns_per_token_(per_second == 0 ? 0 : kNsPerSecond / static_cast<double>(per_second)),
      slack_(cost(burst - 1)) {}

std::size_t permanent_growth(BytesView command) noexcept {
  const auto code = get_be<std::uint32_t>(command, kCode);
  if (code == kDefineSpace) return growth_of_index(command);
  return code == kEvictControl ? growth_of_object(command) : 0;
}

void Quota::set(const ipc::EngineLimits& limits) {
  constexpr std::uint64_t kNsPerUs = 1000;
  commands_ = TokenBucket(limits.commands_per_second, limits.command_burst);
  busy_ = TokenBucket(limits.busy_us_per_second * kNsPerUs, limits.busy_burst_us * kNsPerUs);
  nv_bytes_ = limits.nv_bytes;
}

bool Quota::exceeds_nv(BytesView command, std::size_t permanent_size) const noexcept {
  if (nv_bytes_ == 0) return false;
  const std::size_t growth = permanent_growth(command);
  return growth > 0 && permanent_size + growth > nv_bytes_;
}

}  // namespace vtpm::engine
