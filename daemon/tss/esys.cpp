// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/esys.h"

#include <algorithm>
#include <thread>

namespace vtpm::tss {

Result<std::unique_ptr<Esys>> Esys::make(std::unique_ptr<Tcti> tcti, Patience patience) {
  std::unique_ptr<Esys> esys(new Esys(std::move(tcti), patience));
  const TSS2_RC rc = Esys_Initialize(&esys->context_, esys->tcti_->context(), nullptr);
  if (rc != TSS2_RC_SUCCESS) return to_error("Esys_Initialize", rc);
  return esys;
}

Esys::~Esys() {
  Esys_Finalize(&context_);
}

Result<TSS2_RC> Esys::execute(std::string_view what, const Call& call) {
  using namespace std::chrono_literals;
  const auto end = std::chrono::steady_clock::now() + patience_;
  for (Patience pause = 1ms;; pause = std::min<Patience>(pause * 2, 1s)) {
    const TSS2_RC rc = call(context_);
    if (!is_from_tpm(rc)) {
      if (auto known = tcti_->take_error()) return known->within(what);
      return to_error(what, rc);
    }
    if (!is_busy(rc)) return rc;
    if (std::chrono::steady_clock::now() + pause > end) return to_error(what, rc);
    std::this_thread::sleep_for(pause);
  }
}

Result<> Esys::call(std::string_view what, const Call& call) {
  VTPM_TRY(const TSS2_RC rc, execute(what, call));
  if (rc != TSS2_RC_SUCCESS) return to_error(what, rc);
  return {};
}

}  // namespace vtpm::tss
