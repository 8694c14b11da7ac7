// SPDX-License-Identifier: Apache-2.0
// The anchor: the TPM that signs the epochs. Hardware (or whatever a TCTI reaches), or embedded: an engine of
// our own with durable state, for a machine without a TPM.
#pragma once

#include "daemon/ipc/engine_link.h"

#include <vtpm/log/entry.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>
#include <vtpm/tpm/attest.h>
#include <vtpm/tpm/credential.h>

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace vtpm::anchor {

struct AnchorConfig {
  std::string tcti;  // as tpm2-tss spells it; empty with `embedded`
  bool embedded = false;
  std::string state_dir;  // where anchor.json (AK handle, Name, auth; 0600) and embedded-tpm.state are kept
  std::set<unsigned> pcrs = {0, 1, 2, 3, 4, 5, 6, 7};  // selected in quotes, SHA-256 bank
  std::set<unsigned>
      seal_pcrs;  // the host state key is sealed to their values when it is made; empty: to none
  std::function<void(std::string_view)> report = [](std::string_view) {};  // warnings, for people
};

struct AnchorIdentity {
  log::AnchorKind kind;
  Bytes ak_public;  // TPMT_PUBLIC
  Bytes ak_name;
  std::optional<Bytes> ek_certificate;  // X.509 DER from the TCG NV indices, if there is one
  std::string manufacturer;             // TPM2_PT_MANUFACTURER and vendor strings: "IBM SW TPM"
  std::uint64_t firmware_version;
};

struct AnchorQuote {
  Bytes quote;      // TPMS_ATTEST
  Bytes signature;  // TPMT_SIGNATURE
  tpm::PcrValues pcrs;
};

// Whose the TPM is, by its manufacturer.
struct Endorsement {
  Bytes ek_public;    // TPMT_PUBLIC
  Bytes certificate;  // X.509 DER
};

// Blocking; used from one worker thread at a time. Nothing stays in the TPM's transient or session slots
// between calls. TPM_RC_RETRY, OBJECT_MEMORY, SESSION_HANDLES and the like are retried with growing pauses
// for up to 10 s, then Busy. A TPM that vanished: Unreachable; the next call connects again.
class Anchor {
 public:
  virtual ~Anchor() = default;
  virtual const AnchorIdentity& identity() const noexcept = 0;
  // Signs `qualifying_data` and the PCRs; the PCR values are read so that they match the quote's digest (a
  // PCR that changes in between is read again).
  virtual Result<AnchorQuote> quote(const tpm::Sha256& qualifying_data) = 0;
  virtual Result<tpm::PcrValues> read_pcrs() = 0;
  // The host state key, 32 bytes: the instances' state keys are wrapped by it. Made at first use. Hardware:
  // sealed in the TPM, its blob in state_dir/state-key.json. Embedded: state_dir/state.key, mode 0600, no
  // better protected than the directory. A damaged file, or one that this TPM did not make: Corrupt, naming
  // it; it is kept and no other key is made. PCRs that differ from those that it is sealed to: Configuration.
  virtual Result<Secret> state_key() = 0;
  // The same, but nothing is made: nullopt when there is no file.
  virtual Result<std::optional<Secret>> existing_state_key() = 0;
  // The EK that the manufacturer's certificate in the TPM is for. A slow TPM takes seconds. No certificate:
  // NotFound. One for a key that the TPM does not have: Corrupt.
  virtual Result<Endorsement> endorsement() = 0;
  // TPM2_ActivateCredential: what a credential holds that was made for this TPM's EK and the AK. Another:
  // Malformed.
  virtual Result<Secret> activate(const tpm::Credential& credential) = 0;
  // Orderly end (TPM2_Shutdown of an embedded TPM, its state saved).
  virtual Result<> close() = 0;
};

// A new engine, not powered on.
using SpawnEngine = std::function<Result<ipc::SpawnedEngine>()>;

// Opens the TPM and its AK: created at first use, kept at a persistent handle with a random auth value in
// anchor.json. An AK that is gone or differs from anchor.json is Corrupt, with what to do: never re-created
// silently. `spawn` makes the engine of an embedded anchor, at every connection.
Result<std::unique_ptr<Anchor>> open_anchor(const AnchorConfig& config, SpawnEngine spawn);

}  // namespace vtpm::anchor
