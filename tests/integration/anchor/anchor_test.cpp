// SPDX-License-Identifier: Apache-2.0
// The anchor's everyday life: one key, made once; quotes that verify; nothing left behind.
#include "daemon/anchor/attestation_key.h"
#include "daemon/anchor/record.h"
#include "daemon/tss/capability.h"
#include "tests/integration/anchor/fixture.h"

#include <vtpm/os/file.h>
#include <vtpm/tpm/attest.h>

#include <openssl/x509.h>
#include <signal.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

void check_quote(const anchor::AnchorIdentity& identity, const anchor::AnchorQuote& quote) {
  CHECK(tpm::verify_signature(identity.ak_public, quote.quote, quote.signature).has_value());
  const auto parsed = tpm::parse_quote(quote.quote);
  REQUIRE(parsed.has_value());
  CHECK(parsed->extra_data == Bytes(kData.begin(), kData.end()));
  const auto digest = tpm::pcr_digest(quote.pcrs);
  CHECK(parsed->pcr_digest == Bytes(digest.begin(), digest.end()));
  CHECK(parsed->pcrs == std::vector<unsigned>{0, 1, 2, 3, 4, 5, 6, 7});
  // Values of another hierarchy would be obfuscated.
  CHECK(parsed->reset_count < 100);
  CHECK(parsed->firmware_version == identity.firmware_version);
}

anchor::AnchorConfig config_of(const Swtpm& swtpm, const TempDir& state) {
  anchor::AnchorConfig config;
  config.tcti = swtpm.tcti();
  config.state_dir = state.path();
  return config;
}

Result<std::unique_ptr<anchor::Anchor>> open_tcti_anchor(const Swtpm& swtpm, const TempDir& state) {
  return anchor::open_over(anchor::tcti_connection(swtpm.tcti()), config_of(swtpm, state));
}

}  // namespace

TEST_CASE("anchor: its key is made once and found again") {
  REQUIRE_SWTPM();
  const TempDir tpm_dir;
  const TempDir state;
  const auto swtpm = Swtpm::start(tpm_dir.path());
  Bytes name;
  {
    const auto first = open_tcti_anchor(*swtpm, state);
    REQUIRE(first.has_value());
    name = (*first)->identity().ak_name;
    CHECK((*first)->identity().kind == log::AnchorKind::Tpm);
    CHECK((*first)->identity().manufacturer == "IBM SW TPM");
    CHECK(tpm::check_attestation_key((*first)->identity().ak_public).has_value());
    CHECK(tpm::name_of_public((*first)->identity().ak_public).value() == name);
    REQUIRE((*first)->close().has_value());
    CHECK((*first)->quote(kData).error().kind() == ErrorCode::Unavailable);
  }
  const std::string record(as_text(read_file(anchor::record_path(state.path()), 4096).value()));
  const auto second = open_tcti_anchor(*swtpm, state);
  REQUIRE(second.has_value());
  CHECK((*second)->identity().ak_name == name);
  CHECK(as_text(read_file(anchor::record_path(state.path()), 4096).value()) == record);
  const auto quote = (*second)->quote(kData);
  REQUIRE(quote.has_value());
  check_quote((*second)->identity(), *quote);
}

TEST_CASE("anchor: a TPM that nobody has started is started") {
  REQUIRE_SWTPM();
  const TempDir tpm_dir;
  const TempDir state;
  const auto swtpm = Swtpm::start(tpm_dir.path(), false);
  const auto anchor = open_tcti_anchor(*swtpm, state);
  REQUIRE(anchor.has_value());
  CHECK((*anchor)->quote(kData).has_value());
}

TEST_CASE("anchor: nothing of a call stays in the TPM") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto esys = machine.esys();
  const auto pristine = occupancy(*esys);
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  auto opened = occupancy(*esys);
  CHECK(opened.persistent == std::vector<TPM2_HANDLE>{anchor::kFirstHandle});
  opened.persistent = pristine.persistent;
  CHECK(opened == pristine);

  const auto before = occupancy(*esys);
  const auto quote = (*anchor)->quote(kData);
  REQUIRE(quote.has_value());
  check_quote((*anchor)->identity(), *quote);
  CHECK(occupancy(*esys) == before);
  CHECK((*anchor)->read_pcrs().value() == quote->pcrs);
  CHECK(occupancy(*esys) == before);
}

TEST_CASE("anchor: handles that others use are left alone") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto esys = machine.esys();
  {
    const auto other = foreign_key(*esys, "other");
    REQUIRE(tss::persist(*esys, other.object, anchor::kFirstHandle).has_value());
    REQUIRE(tss::persist(*esys, other.object, anchor::kFirstHandle + 1).has_value());
  }
  REQUIRE(machine.open().has_value());
  CHECK(occupancy(*esys).persistent ==
        std::vector<TPM2_HANDLE>{anchor::kFirstHandle, anchor::kFirstHandle + 1, anchor::kFirstHandle + 2});
}

TEST_CASE("anchor: its key's auth value is needed to sign") {
  REQUIRE_SWTPM();
  Machine machine;
  REQUIRE(machine.open().has_value());
  const auto esys = machine.esys();
  const auto key = tss::find(*esys, anchor::kFirstHandle);
  REQUIRE(key.value().has_value());
  TPM2B_DATA data{};
  TPMT_SIG_SCHEME scheme{};
  scheme.scheme = TPM2_ALG_NULL;
  TPML_PCR_SELECTION pcrs{};
  TPM2B_ATTEST* attest = nullptr;
  TPMT_SIGNATURE* signature = nullptr;
  const auto rc = esys->execute("TPM2_Quote", [&](ESYS_CONTEXT* context) {
    return Esys_Quote(context, (*key)->handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &data, &scheme,
                      &pcrs, &attest, &signature);
  });
  REQUIRE(rc.has_value());
  CHECK((tss::plain_code(*rc) == TPM2_RC_BAD_AUTH || tss::plain_code(*rc) == TPM2_RC_AUTH_FAIL));
}

TEST_CASE("anchor: a TPM that was killed is Unreachable, and used again when it is back") {
  REQUIRE_SWTPM();
  ::signal(SIGPIPE, SIG_IGN);  // as vtpmd does
  const TempDir tpm_dir;
  const TempDir state;
  auto swtpm = Swtpm::start(tpm_dir.path());
  const auto anchor = open_tcti_anchor(*swtpm, state);
  REQUIRE(anchor.has_value());
  swtpm->kill();
  for (int call = 0; call < 2; ++call) {
    const auto quote = (*anchor)->quote(kData);
    REQUIRE(quote.has_error());
    CHECK(quote.error().kind() == ErrorCode::Unreachable);
    CHECK((*anchor)->read_pcrs().error().kind() == ErrorCode::Unreachable);
  }
  swtpm = Swtpm::start(tpm_dir.path(), false);
  const auto quote = (*anchor)->quote(kData);
  REQUIRE(quote.has_value());
  check_quote((*anchor)->identity(), *quote);
}

TEST_CASE("anchor: the manufacturer's EK certificate is read, without padding") {
  REQUIRE_SWTPM();
  REQUIRE_MANUFACTURER();
  const TempDir state;
  const Manufacturer manufacturer;
  const auto swtpm = manufacturer.make_tpm();
  const auto anchor = open_tcti_anchor(*swtpm, state);
  REQUIRE(anchor.has_value());
  const auto& der = (*anchor)->identity().ek_certificate;
  REQUIRE(der.has_value());
  const unsigned char* at = der->data();
  X509* certificate = d2i_X509(nullptr, &at, static_cast<long>(der->size()));
  REQUIRE(certificate != nullptr);
  CHECK(at == der->data() + der->size());
  CHECK(EVP_PKEY_get_base_id(X509_get0_pubkey(certificate)) == EVP_PKEY_EC);  // preferred to the RSA one
  X509_free(certificate);
}

TEST_CASE("anchor: a TPM without an EK certificate has none") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  CHECK(!(*anchor)->identity().ek_certificate.has_value());
}
