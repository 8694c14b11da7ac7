// SPDX-License-Identifier: Apache-2.0
// Where the host state key is kept (FORMATS.md: "state-key.json", "state.key"). A file that is damaged or
// does not fit the TPM is Corrupt and kept: without the key no durable instance can be read, and another one
// would not help.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/tss/esys.h"

#include <vtpm/os/secret.h>

#include <optional>
#include <string>

namespace vtpm::anchor {

inline constexpr std::size_t kStateKeySize = 32;  // bytes

std::string sealed_key_path(const std::string& state_dir);  // state-key.json
std::string plain_key_path(const std::string& state_dir);   // state.key

// With a TPM. No file: nullopt. Where config.seal_pcrs are not the PCRs that the key is sealed to, it is
// sealed again, to those. PCRs that have other values: Configuration, with what to do.
Result<std::optional<Secret>> load_sealed_key(tss::Esys& esys, const AnchorConfig& config);
// Makes a storage key and persists it, and a state key sealed under it. Precondition: there is no file.
// ownerAuth set: Configuration.
Result<Secret> make_sealed_key(tss::Esys& esys, const AnchorConfig& config);

// Without one: in a file of mode 0600.
Result<std::optional<Secret>> load_plain_key(const std::string& state_dir);
Result<Secret> make_plain_key(const std::string& state_dir);

}  // namespace vtpm::anchor
