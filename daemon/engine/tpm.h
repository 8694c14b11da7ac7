// SPDX-License-Identifier: Apache-2.0
// The TPM of this process: libtpms, its state in memory. The only place that knows libtpms.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/header.h>

namespace vtpm::engine {

// libtpms holds one TPM per process, in globals: at most one object of this class, and never in a process
// that will fork (a fork would give two TPMs one random stream).
class Tpm {
 public:
  Tpm();
  ~Tpm();
  Tpm(const Tpm&) = delete;
  Tpm& operator=(const Tpm&) = delete;

  bool powered() const noexcept { return powered_; }

  // Power-on (TPM_Init, not TPM2_Startup). With `permanent` bytes the TPM continues from them (Corrupt if
  // libtpms refuses them); without, from what an earlier power-on left, or as a new TPM (manufactured).
  Result<> power_on(BytesView permanent);
  // Runs one command at a locality. The response is valid until the next call. libtpms' own failure, not a
  // response code: Internal.
  Result<BytesView> process(tpm::Locality locality, BytesView command);
  // TPM_IO_Hash_Start, Data, End at locality 4: the DRTM sequence (after TPM2_Startup).
  Result<> hash_sequence(BytesView data);
  // The permanent state blob as last committed.
  BytesView permanent_state() const noexcept;
  // Power-off without TPM2_Shutdown. Permanent state is kept.
  void power_off() noexcept;

 private:
  bool powered_ = false;
  unsigned char* response_ = nullptr;  // libtpms reallocates it
  std::uint32_t response_capacity_ = 0;
};

}  // namespace vtpm::engine
