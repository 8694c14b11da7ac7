// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/anchor/fixture.h"

#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"

namespace vtpm::test {
namespace {

class SharedConnection final : public anchor::Connection {
 public:
  SharedConnection(tss::Transmit transmit, tss::Esys::Patience patience)
      : transmit_(std::move(transmit)), patience_(patience) {}
  log::AnchorKind kind() const noexcept override { return log::AnchorKind::Tpm; }
  Result<std::unique_ptr<tss::Esys>> connect() override {
    return tss::Esys::make(tss::make_tcti(transmit_), patience_);
  }
  Result<> save() override { return {}; }
  Result<> close() override { return {}; }

 private:
  tss::Transmit transmit_;
  tss::Esys::Patience patience_;
};

}  // namespace

Machine::Machine() : swtpm_(Swtpm::start(tpm_dir_.path())), transmit_(swtpm_->connect()) {}

std::unique_ptr<tss::Esys> Machine::esys() const {
  return std::move(tss::Esys::make(tss::make_tcti(transmit_), tss::Esys::kPatience).value());
}

anchor::AnchorConfig Machine::config() const {
  anchor::AnchorConfig config;
  config.state_dir = state_.path();
  return config;
}

Result<std::unique_ptr<anchor::Anchor>> Machine::open(const anchor::AnchorConfig& config,
                                                      tss::Esys::Patience patience) {
  auto watched = [this](BytesView command) -> Result<Bytes> {
    if (intercept)
      if (auto response = intercept(get_be<std::uint32_t>(command, 6), command)) return std::move(*response);
    return transmit_(command);
  };
  return anchor::open_over(std::make_unique<SharedConnection>(watched, patience), config);
}

Occupancy occupancy(tss::Esys& esys) {
  return Occupancy{tss::property(esys, TPM2_PT_HR_TRANSIENT_AVAIL).value(),
                   tss::property(esys, TPM2_PT_HR_LOADED_AVAIL).value(),
                   tss::property(esys, TPM2_PT_HR_ACTIVE_AVAIL).value(), tss::transient_objects(esys).value(),
                   tss::handles(esys, TPM2_PERSISTENT_FIRST, TPM2_PERSISTENT_LAST).value()};
}

tss::CreatedPrimary foreign_key(tss::Esys& esys, std::string_view domain) {
  const auto area = identity::attestation_key_template(tpm::sha256(as_bytes(domain)));
  return std::move(tss::create_primary(esys, ESYS_TR_RH_ENDORSEMENT, area).value());
}

Bytes answer(TPM2_RC code) {
  Bytes bytes;
  put_be<std::uint16_t>(bytes, TPM2_ST_NO_SESSIONS);
  put_be<std::uint32_t>(bytes, tpm::kHeaderSize);
  put_be<std::uint32_t>(bytes, code);
  return bytes;
}

}  // namespace vtpm::test
