// SPDX-License-Identifier: Apache-2.0
// The TPM of this process: libtpms, its state in memory and, where it is durable, in two slot files. The only
// place that knows libtpms.
#pragma once

#include "daemon/engine/lockout.h"
#include "daemon/engine/slot_store.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/header.h>

#include <optional>

namespace vtpm::engine {

// libtpms' volatile state, with which a command is undone; empty of a TPM that was not started.
struct Snapshot {
  Bytes bytes;
  Snapshot() = default;
  Snapshot(Snapshot&&) noexcept = default;
  Snapshot& operator=(Snapshot&&) noexcept = default;
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  ~Snapshot();  // wipes
};

// libtpms holds one TPM per process, in globals: at most one object of this class, and never in a process
// that will fork (a fork would give two TPMs one random stream).
//
// A durable TPM commits what a command changed in NV before that command's response is returned. A commit
// that fails undoes the command: the TPM is as it was before, and the response is TPM_RC_NV_UNAVAILABLE.
class Tpm {
 public:
  Tpm();
  ~Tpm();
  Tpm(const Tpm&) = delete;
  Tpm& operator=(const Tpm&) = delete;

  bool powered() const noexcept { return powered_; }

  // Power-on (TPM_Init, not TPM2_Startup). With `permanent` bytes the TPM continues from them (Corrupt if
  // libtpms refuses them; Conflict for a durable TPM, whose state is its slots'); without, from what an
  // earlier power-on left, or as a new TPM (manufactured).
  Result<> power_on(BytesView permanent);
  // The first power-on of a durable TPM: continues from what the slots have, or is manufactured and
  // committed. An error leaves a TPM that was never powered on.
  Result<> power_on_durable(SlotStore slots);
  // Runs one command at a locality. The response is valid until the next call. libtpms' own failure, not a
  // response code: Internal.
  Result<BytesView> process(tpm::Locality locality, BytesView command);
  // Has the command that runs end with TPM_RC_CANCELED, if it can. Async-signal-safe: it sets a flag.
  static void cancel() noexcept;
  // TPM_IO_Hash_Start, Data, End at locality 4: the DRTM sequence (after TPM2_Startup).
  Result<> hash_sequence(BytesView data);
  // The permanent state blob as libtpms stored it last.
  BytesView permanent_state() const noexcept;
  // Of the last commit of a durable TPM; 0: none.
  std::uint64_t sequence() const noexcept { return slots_ ? slots_->sequence() : 0; }
  // Power-off without TPM2_Shutdown. Permanent state is kept.
  void power_off() noexcept;

 private:
  Result<BytesView> run(tpm::Locality locality, BytesView command);
  Result<BytesView> run_durably(tpm::Locality locality, BytesView command);
  Result<> hash(BytesView data);
  // For the engine's own commands within another one: its response stays.
  static Execute aside();
  Result<Snapshot> volatile_state() const;
  void count_tries(std::uint32_t command, BytesView response);
  Result<> commit();
  Result<> commit_rest();  // what an earlier command left uncommitted
  void undo(const Snapshot& before);

  bool powered_ = false;
  bool started_ = false;               // TPM2_Startup succeeded since power-on
  unsigned char* response_ = nullptr;  // libtpms reallocates it
  std::uint32_t response_capacity_ = 0;

  std::optional<SlotStore> slots_;
  std::uint32_t failed_tries_ = 0;  // at least as many as the TPM has counted
  bool uncommitted_ = false;        // the state in memory is ahead of the slots
  bool failing_ = false;            // the last commit failed, which was logged
};

}  // namespace vtpm::engine
