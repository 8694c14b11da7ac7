// SPDX-License-Identifier: Apache-2.0
// The anchor's TPM shows whose it is: an EK with its manufacturer's certificate, and credentials that are for
// it alone.
#include "daemon/anchor/ek_certificate.h"
#include "daemon/anchor/endorsement_key.h"
#include "daemon/identity/templates.h"
#include "tests/integration/anchor/fixture.h"
#include "tests/support/catch_result.h"

#include <vtpm/tpm/ek_certificate.h>

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <chrono>

using namespace vtpm;
using namespace vtpm::test;
using anchor::EndorsementKey;

namespace {

std::unique_ptr<tss::Esys> connect(const Swtpm& swtpm) {
  return std::move(tss::Esys::make(tss::make_tcti(swtpm.connect()), tss::Esys::kPatience).value());
}

EndorsementKey made(tss::Esys& esys, identity::EkProfile profile) {
  auto key = tss::create_primary(esys, ESYS_TR_RH_ENDORSEMENT, identity::ek_template(profile)).value();
  return {std::move(key.object), std::move(key.public_area), {}};
}

Secret secret(std::size_t size = 32) {
  return Secret(Bytes(size, 0x5a));
}

std::uint64_t now() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

Bytes der_of(const std::string& pem) {
  BIO* memory = BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size()));
  X509* certificate = PEM_read_bio_X509(memory, nullptr, nullptr, nullptr);
  unsigned char* out = nullptr;
  const int size = i2d_X509(certificate, &out);
  Bytes der(out, out + size);
  OPENSSL_free(out);
  X509_free(certificate);
  BIO_free(memory);
  return der;
}

}  // namespace

TEST_CASE("credential: a TPM gives it away for the key that it names, by EKs of each profile") {
  REQUIRE_SWTPM();
  const auto profile =
      GENERATE(identity::EkProfile::EccP256, identity::EkProfile::EccP384, identity::EkProfile::Rsa2048);
  Machine machine;
  const auto esys = machine.esys();
  const auto before = occupancy(*esys);
  {
    const EndorsementKey ek = made(*esys, profile);
    const auto key = foreign_key(*esys, "attestation");
    const Bytes name = tss::name_of(*esys, key.object).value();
    const auto credential = tpm::make_credential(ek.public_area, name, secret());
    REQUIRE(credential);
    const auto given = anchor::activate_credential(*esys, key.object, ek, *credential);
    REQUIRE(given);
    CHECK(std::ranges::equal(given->view(), secret().view()));

    const auto another = foreign_key(*esys, "another");
    CHECK(anchor::activate_credential(*esys, another.object, ek, *credential).error().kind() ==
          ErrorCode::Malformed);
    auto damaged = *credential;
    damaged.id_object.back() ^= 1;
    CHECK(anchor::activate_credential(*esys, key.object, ek, damaged).error().kind() == ErrorCode::Malformed);
    damaged = *credential;
    damaged.encrypted_secret.back() ^= 1;
    CHECK_FALSE(anchor::activate_credential(*esys, key.object, ek, damaged));
    damaged.encrypted_secret.pop_back();
    CHECK(anchor::activate_credential(*esys, key.object, ek, damaged).error().kind() == ErrorCode::Malformed);
  }
  CHECK(occupancy(*esys) == before);
}

TEST_CASE("credential: another TPM does not give it away") {
  REQUIRE_SWTPM();
  Machine one, other;
  const auto esys = one.esys(), others = other.esys();
  const EndorsementKey ek = made(*esys, identity::EkProfile::EccP256);
  const auto key = foreign_key(*esys, "attestation");
  const auto credential =
      tpm::make_credential(ek.public_area, tss::name_of(*esys, key.object).value(), secret()).value();
  const EndorsementKey others_ek = made(*others, identity::EkProfile::EccP256);
  const auto others_key = foreign_key(*others, "attestation");
  CHECK_FALSE(anchor::activate_credential(*others, others_key.object, others_ek, credential));
}

TEST_CASE("endorsement key: it is the one of the manufacturer's certificate, persistent or made again") {
  REQUIRE_SWTPM();
  REQUIRE_MANUFACTURER();
  const Manufacturer manufacturer;
  const auto swtpm = manufacturer.make_tpm();
  const auto esys = connect(*swtpm);
  Bytes area;
  {
    const auto ek = anchor::open_endorsement_key(*esys);
    REQUIRE(ek);
    area = ek->public_area;
    CHECK(tpm::check_endorsement_key(area));
    CHECK(tpm::check_certified_key(ek->certificate, area));
    CHECK(tpm::check_certificate_chain(ek->certificate, {der_of(manufacturer.intermediate())},
                                       manufacturer.root(), now()));
    const std::string text = tpm::describe_certificate(ek->certificate).value();
    INFO(text);
    CHECK(text.find("2.23.133.2.1") != std::string::npos);  // tcg-at-tpmManufacturer
  }
  for (const TPM2_HANDLE handle : occupancy(*esys).persistent)
    REQUIRE(tss::evict(*esys, handle));
  const auto before = occupancy(*esys);
  {
    const auto again = anchor::open_endorsement_key(*esys);
    REQUIRE(again);
    CHECK(again->public_area == area);
  }
  CHECK(occupancy(*esys) == before);
}

TEST_CASE("endorsement key: a TPM whose endorsement seed was changed is not the certificate's") {
  REQUIRE_SWTPM();
  REQUIRE_MANUFACTURER();
  const Manufacturer manufacturer;
  const auto swtpm = manufacturer.make_tpm();
  const auto esys = connect(*swtpm);
  REQUIRE(esys->call("TPM2_ChangeEPS", [](ESYS_CONTEXT* context) {
    return Esys_ChangeEPS(context, ESYS_TR_RH_PLATFORM, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE);
  }));
  CHECK(anchor::open_endorsement_key(*esys).error().kind() == ErrorCode::Corrupt);
}

TEST_CASE("endorsement key: a TPM without a certificate has none") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto esys = machine.esys();
  CHECK(anchor::open_endorsement_key(*esys).error().kind() == ErrorCode::NotFound);
}

TEST_CASE("certificate chain: another manufacturer's, a missing link, a wrong time and damage are refused") {
  REQUIRE_SWTPM();
  REQUIRE_MANUFACTURER();
  const Manufacturer manufacturer, other;
  const auto swtpm = manufacturer.make_tpm(), others = other.make_tpm();
  const auto esys = connect(*swtpm);
  const auto ek = anchor::open_endorsement_key(*esys);
  REQUIRE(ek);
  const Bytes& leaf = ek->certificate;
  const std::vector<Bytes> between{der_of(manufacturer.intermediate())};
  const auto kind = [](const Result<>& result) {
    return result ? ErrorCode::Internal : result.error().kind();
  };
  CHECK(tpm::check_certificate_chain(leaf, between, manufacturer.root(), now()));
  CHECK(tpm::check_certificate_chain(leaf, {}, manufacturer.intermediate(), now()));
  CHECK(kind(tpm::check_certificate_chain(leaf, {}, manufacturer.root(), now())) == ErrorCode::NotVerified);
  CHECK(kind(tpm::check_certificate_chain(leaf, between, other.root(), now())) == ErrorCode::NotVerified);
  CHECK(kind(tpm::check_certificate_chain(leaf, between, manufacturer.root(), 0)) == ErrorCode::NotVerified);
  CHECK(kind(tpm::check_certificate_chain(leaf, between, "no PEM", now())) == ErrorCode::Malformed);
  Bytes damaged = leaf;
  damaged.back() ^= 1;
  CHECK(kind(tpm::check_certificate_chain(damaged, between, manufacturer.root(), now())) ==
        ErrorCode::NotVerified);
  damaged = leaf;
  damaged.push_back(0);
  CHECK(kind(tpm::check_certificate_chain(damaged, between, manufacturer.root(), now())) ==
        ErrorCode::Malformed);
}
