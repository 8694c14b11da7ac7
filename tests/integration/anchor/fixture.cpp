// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/anchor/fixture.h"

#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"

#include <vtpm/os/file.h>

#include <fstream>
#include <stdexcept>

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

Manufacturer::Manufacturer() {
  std::ofstream(ca_ / "ca.conf") << "statedir = " << ca_.path() << "\nsigningkey = " << ca_ / "signkey.pem"
                                 << "\nissuercert = " << ca_ / "issuercert.pem"
                                 << "\ncertserial = " << ca_ / "serial"
                                 << "\n";
  std::ofstream(ca_ / "ca.options")
      << "--platform-manufacturer Test\n--platform-version 1\n--platform-model T\n";
  std::ofstream(ca_ / "setup.conf")
      << "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = " << ca_ / "ca.conf"
      << "\ncreate_certs_tool_options = " << ca_ / "ca.options"
      << "\nactive_pcr_banks = sha256\n";
}

std::unique_ptr<Swtpm> Manufacturer::make_tpm() const {
  std::vector<std::string> setup = {"swtpm_setup",      "--tpm2",   "--tpmstate",       tpm_.path(),
                                    "--create-ek-cert", "--config", ca_ / "setup.conf", "--overwrite"};
  if (::geteuid() == 0) setup.insert(setup.end(), {"--runas", "root"});
  if (run_program(setup, ca_ / "log") != 0) throw std::runtime_error("swtpm_setup failed");
  return Swtpm::start(tpm_.path());
}

std::string Manufacturer::root() const {
  return std::string(as_text(read_file(ca_ / "swtpm-localca-rootca-cert.pem", 65536).value()));
}

std::string Manufacturer::intermediate() const {
  return std::string(as_text(read_file(ca_ / "issuercert.pem", 65536).value()));
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
