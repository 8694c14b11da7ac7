// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/connection.h"
#include "daemon/tss/capability.h"

namespace vtpm::anchor {
namespace {

class TctiConnection final : public Connection {
 public:
  explicit TctiConnection(std::string tcti) noexcept : tcti_(std::move(tcti)) {}

  log::AnchorKind kind() const noexcept override { return log::AnchorKind::Tpm; }

  Result<std::unique_ptr<tss::Esys>> connect() override {
    VTPM_TRY(auto tcti, tss::open_tcti(tcti_));
    VTPM_TRY(auto esys, tss::Esys::make(std::move(tcti), tss::Esys::kPatience));
    // A kernel starts its TPM; an emulator may wait for us.
    VTPM_TRY_VOID(tss::startup(*esys, true));
    return esys;
  }

  Result<> save() override { return {}; }
  Result<> close() override { return {}; }  // the TPM is the host's: nothing to shut down

 private:
  std::string tcti_;
};

}  // namespace

std::unique_ptr<Connection> tcti_connection(std::string tcti) {
  return std::make_unique<TctiConnection>(std::move(tcti));
}

}  // namespace vtpm::anchor
