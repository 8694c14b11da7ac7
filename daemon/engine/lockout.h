// SPDX-License-Identifier: Apache-2.0
// The dictionary-attack counter of a durable TPM over an unclean stop.
//
// libtpms (as the TCG's reference code) cannot know at TPM2_Startup whether the TPM lost power between a
// wrong password and its record. So after the first use of a protected object it notes "used" in NV
// (SU_DA_USED_VALUE), and a Startup that finds the note counts one failed try (DAStartup). Here a response
// leaves only after the commit: a try whose outcome anybody has seen is on disk, and what Startup adds was
// never one. Three kills would otherwise lock a tenant out of a freshly cleared TPM.
#pragma once

#include <vtpm/os/bytes.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace vtpm::engine {

// One command at locality 0 to its response.
using Execute = std::function<Bytes(BytesView command)>;

// TPM_PT_LOCKOUT_COUNTER; nothing from a TPM that was not started.
std::optional<std::uint32_t> failed_tries(const Execute& execute);

// Real tries that are put back, at most: each is a command, and nobody mistypes a password more often.
inline constexpr std::uint32_t kMaxRestoredTries = 64;

// Right after a successful Startup of a TPM whose counter was `before` at its last commit: if Startup added
// one, takes it off again. TPM2_DictionaryAttackLockReset forgets the real tries, too, so these are failed
// once more. Does nothing where lockoutAuth is set (a wrong password for it would disable it: the counter
// then heals by itself, one try each recoveryTime), or above kMaxRestoredTries.
void take_back_unclean_stop(const Execute& execute, std::uint32_t before);

}  // namespace vtpm::engine
