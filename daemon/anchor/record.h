// SPDX-License-Identifier: Apache-2.0
// anchor.json: which attestation key in which TPM is the anchor's, and its auth value (FORMATS.md).
#pragma once

#include <vtpm/log/entry.h>
#include <vtpm/os/secret.h>

#include <optional>
#include <string>

namespace vtpm::anchor {

struct Record {
  log::AnchorKind kind;
  std::uint32_t handle;  // persistent, in the range of attestation_key.h
  Bytes ak_name;
  Secret auth;
};

std::string record_path(const std::string& state_dir);

// No file: nullopt. Unreadable or not a record: Corrupt, naming the file.
Result<std::optional<Record>> read_record(const std::string& state_dir);
// Replaces the file, mode 0600.
Result<> write_record(const std::string& state_dir, const Record& record);

}  // namespace vtpm::anchor
