// SPDX-License-Identifier: Apache-2.0
// The jail of the zygote and of each engine. PRIVSEP.md says what it is for.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

namespace vtpm::engine {

// Whose jail: the engine's filter is a subset of the zygote's; the keeper's is its own.
enum class Role : unsigned { Zygote = 1, Engine = 2, Keeper = 4 };

// A compiled seccomp program. Compiled before the jail, installed in it: an engine installs the program that
// the zygote compiled once.
class SyscallFilter {
 public:
  // From the table in seccomp_rows.h. Unsupported: libseccomp cannot express a row on this machine.
  static Result<SyscallFilter> compile(Role role);
  // For the rest of the life of this process and its children. Needs no_new_privs.
  Result<> install() const;

 private:
  explicit SyscallFilter(Bytes program) : program_(std::move(program)) {}
  Bytes program_;  // an array of sock_filter
};

// Descriptors 0-2 are /dev/null, /dev/null and the log; this is the only other.
inline constexpr int kControlFd = 3;

// What this machine's jail consists of beyond the least: ipc::kJail* bits.
using JailParts = std::uint32_t;

// Jails the zygote, once, at its start. What the kernel does not permit is missing in the parts that are
// returned, and the log says why. After an error the process must end.
Result<JailParts> enter_zygote_jail(const SyscallFilter& filter);
// Jails an engine, which inherits the zygote's jail: descriptor `control` becomes kControlFd, every other one
// is closed. `parts`: the zygote's.
Result<> enter_engine_jail(const SyscallFilter& filter, int control, JailParts parts);
// Jails the keeper, once, at its start. It may hold as many descriptors as the hard limit allows: their
// number.
Result<std::size_t> enter_keeper_jail(const SyscallFilter& filter);

}  // namespace vtpm::engine
