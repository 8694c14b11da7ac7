// SPDX-License-Identifier: Apache-2.0
// Esys: an ESYS context that owns its transport, waits for a busy TPM and reports Errors.
#pragma once

#include "daemon/tss/response.h"
#include "daemon/tss/tcti.h"

#include <tss2/tss2_esys.h>

#include <chrono>
#include <memory>

namespace vtpm::tss {

// Frees what ESYS allocated.
struct EsysFree {
  void operator()(void* memory) const noexcept { Esys_Free(memory); }
};
template <class T>
using EsysPtr = std::unique_ptr<T, EsysFree>;

// Blocking; one thread at a time. Sends nothing by itself.
class Esys {
 public:
  // How long a command is repeated that the TPM cannot take now (tss::is_busy).
  using Patience = std::chrono::milliseconds;
  static constexpr Patience kPatience{10'000};

  static Result<std::unique_ptr<Esys>> make(std::unique_ptr<Tcti> tcti, Patience patience);
  Esys(const Esys&) = delete;
  Esys& operator=(const Esys&) = delete;
  ~Esys();

  // An Esys_* function with its arguments bound.
  using Call = std::function<TSS2_RC(ESYS_CONTEXT*)>;

  // Runs `call` until the TPM is not busy or the patience is used up, with pauses that double from 1 ms to
  // 1 s; then Busy. Any other response code of the TPM is the value, TPM_RC_SUCCESS or not (see plain_code).
  // The other Errors are those of the transport: after them this context is of no further use.
  Result<TSS2_RC> execute(std::string_view what, const Call& call);

  // As execute, with every response code but success an Error (tss::to_error). `what` names the command or
  // its purpose for a person.
  Result<> call(std::string_view what, const Call& call);

  // For functions that send nothing (Esys_TR_*).
  ESYS_CONTEXT* context() noexcept { return context_; }

 private:
  Esys(std::unique_ptr<Tcti> tcti, Patience patience) noexcept
      : tcti_(std::move(tcti)), patience_(patience) {}
  std::unique_ptr<Tcti> tcti_;  // ESYS borrows it
  Patience patience_;
  ESYS_CONTEXT* context_ = nullptr;
};

}  // namespace vtpm::tss
