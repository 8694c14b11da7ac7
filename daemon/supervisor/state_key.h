// SPDX-License-Identifier: Apache-2.0
// The state key of a durable instance as the database keeps it: wrapped by the host state key (FORMATS.md:
// "Durable instances").
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>

#include <string>

namespace vtpm::supervisor {

// Of a state key and of the host state key, bytes.
inline constexpr std::size_t kStateKeyBytes = 32;

// AES-256-GCM under the host key, a random nonce, the instance's id as associated data.
Result<Bytes> wrap_state_key(const Secret& host_key, const std::string& id, const Secret& state_key);
// What was wrapped for this id by this host key; anything else is Corrupt.
Result<Secret> unwrap_state_key(const Secret& host_key, const std::string& id, BytesView wrapped);

}  // namespace vtpm::supervisor
