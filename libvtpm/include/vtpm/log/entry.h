// SPDX-License-Identifier: Apache-2.0
// Entries of the host's log (design: the chain of trust). An entry is the exact bytes of a JSON document;
// FORMATS.md has its members. Writing gives one spelling (members sorted, no white space); reading is strict:
// unknown, missing or duplicate members, or another type, are Malformed.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/attest.h>

#include <optional>
#include <string>
#include <variant>

namespace vtpm::log {

using tpm::PcrValues;
using tpm::Sha256;

// What signs the epochs.
enum class AnchorKind { Tpm, Embedded };
std::string_view to_string(AnchorKind kind) noexcept;  // "tpm", "embedded"

// A supervisor began to serve: "host.start".
struct HostStart {
  std::uint64_t time;  // ms since 1970-01-01T00:00:00Z
  AnchorKind anchor;
  Bytes ak_name;        // of the anchor's AK
  PcrValues pcrs;       // of the anchor, SHA-256 bank
  Sha256 vtpmd;         // digest of the vtpmd binary
  Sha256 engine;        // digest of the vtpm-engine binary
  std::string version;  // of vtpmd
};

// "host.stop".
struct HostStop {
  std::uint64_t time;
};

// An instance was manufactured, or a durable one was started again: "instance.create". `launch` is the digest
// that the DRTM sequence extended into PCR 17: SHA-256 of the launch document (see launch.h).
struct InstanceCreate {
  std::uint64_t time;
  std::string instance;      // its id
  std::uint32_t owner;       // uid of the peer that had it made and claimed what follows; 0: root
  std::uint64_t host_start;  // index of the host.start entry under which it was made
  std::optional<std::string> container;
  std::optional<std::string> image;   // digest as the engine gave it, "sha256:..."
  std::optional<std::string> config;  // digest of the OCI config.json, "sha256:..."
  Bytes ek_name;
  Bytes ak_name;
  Sha256 launch;
};

// "instance.destroy".
struct InstanceDestroy {
  std::uint64_t time;
  std::string instance;
  std::string reason;  // "requested", "container-ended", "engine-died", "supervisor-restarted", ...
};

// The engine of a durable instance died, and another continues from its stored state: "instance.reset".
struct InstanceReset {
  std::uint64_t time;
  std::string instance;
  std::string reason;  // how the engine ended: "killed by signal 9 (SIGKILL)", ...
};

// A durable instance had stored this much: "instance.state". A start from an older state is refused.
struct InstanceState {
  std::uint64_t time;
  std::string instance;
  std::uint64_t sequence;  // of the last commit to its slots
};

using Entry =
    std::variant<HostStart, HostStop, InstanceCreate, InstanceDestroy, InstanceReset, InstanceState>;

std::string serialize(const Entry& entry);
Result<Entry> parse_entry(BytesView bytes);

}  // namespace vtpm::log
