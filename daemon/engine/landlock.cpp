// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/landlock.h"

#include <vtpm/os/unique_fd.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

namespace vtpm::engine {
namespace {

// landlock_create_ruleset(2). The kernel headers that this is built with may be older than the kernel.
struct RulesetAttributes {
  std::uint64_t file_system;
  std::uint64_t network;
  std::uint64_t scoped;
};
constexpr std::uint32_t kCreateRulesetVersion = 1;

// What each ABI added: all rights that can be taken away, and how much of the structure it reads.
struct Abi {
  std::uint64_t file_system;
  std::uint64_t network;
  std::uint64_t scoped;
  std::size_t size;
};
constexpr std::array kAbis = {
    Abi{(1 << 13) - 1, 0, 0, 8},  Abi{(1 << 14) - 1, 0, 0, 8},  Abi{(1 << 15) - 1, 0, 0, 8},
    Abi{(1 << 15) - 1, 3, 0, 16}, Abi{(1 << 16) - 1, 3, 0, 16}, Abi{(1 << 16) - 1, 3, 3, 24},
};

}  // namespace

Result<int> enter_landlock() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateRulesetVersion);
  if (version < 1)
    return Error(ErrorCode::Unsupported, "landlock: " + errno_error("the kernel has none", errno).context);
  const auto known = std::min(static_cast<std::size_t>(version), kAbis.size());
  const Abi& abi = kAbis[known - 1];
  const RulesetAttributes attributes{abi.file_system, abi.network, abi.scoped};
  const UniqueFd ruleset(static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, abi.size, 0)));
  if (!ruleset) return errno_error("landlock_create_ruleset", errno);
  // No rule is added: nothing of all this is permitted anywhere.
  if (::syscall(SYS_landlock_restrict_self, ruleset.get(), 0) != 0)
    return errno_error("landlock_restrict_self", errno);
  return static_cast<int>(version);
}

}  // namespace vtpm::engine
