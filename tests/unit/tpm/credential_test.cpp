// SPDX-License-Identifier: Apache-2.0
// What is refused before anything is encrypted. That TPMs take what is made: tests/integration/anchor.
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"

#include <vtpm/tpm/credential.h>
#include <vtpm/tpm/ek_certificate.h>

using namespace vtpm;
using namespace vtpm::tpm;
using namespace vtpm::test;

namespace {

constexpr std::uint32_t kFixedTpm = 1U << 1, kFixedParent = 1U << 4, kSensitiveDataOrigin = 1U << 5,
                        kAdminWithPolicy = 1U << 7, kRestricted = 1U << 16, kDecrypt = 1U << 17,
                        kSign = 1U << 18;
constexpr std::uint32_t kEkAttributes =
    kFixedTpm | kFixedParent | kSensitiveDataOrigin | kAdminWithPolicy | kRestricted | kDecrypt;
constexpr std::uint16_t kSha1 = 0x0004, kSha256 = 0x000b, kSha384 = 0x000c;
constexpr std::size_t kPoint = 2 * (2 + 32);  // two TPM2B_ECC_PARAMETER

struct Ek {
  std::uint32_t attributes = kEkAttributes;
  std::uint16_t name_alg = kSha256;
  std::uint16_t key_bits = 128;
  std::uint16_t mode = 0x0043;   // CFB
  std::uint16_t curve = 0x0003;  // P-256
};

// TPMT_PUBLIC of a P-256 EK.
Bytes public_area(const Ek& ek = {}) {
  Bytes area;
  put_be<std::uint16_t>(area, 0x0023);  // ECC
  put_be(area, ek.name_alg);
  put_be(area, ek.attributes);
  put_be<std::uint16_t>(area, 0);       // authPolicy
  put_be<std::uint16_t>(area, 0x0006);  // AES
  put_be(area, ek.key_bits);
  put_be(area, ek.mode);
  put_be<std::uint16_t>(area, 0x0010);  // scheme: none
  put_be(area, ek.curve);
  put_be<std::uint16_t>(area, 0x0010);  // kdf: none
  const Bytes other = SigningKey().public_area();
  put(area, BytesView(other).last(kPoint));
  return area;
}

Secret secret(std::size_t size) {
  return Secret(Bytes(size, 7));
}

}  // namespace

TEST_CASE("endorsement key: a restricted decryption key of its TPM is one") {
  CHECK(check_endorsement_key(public_area()));
  CHECK(check_endorsement_key(public_area({.name_alg = kSha384, .key_bits = 256})));
}

TEST_CASE("endorsement key: a key that lacks an attribute, signs, or has other algorithms is none") {
  for (const auto lacking : {kFixedTpm, kFixedParent, kSensitiveDataOrigin, kRestricted, kDecrypt}) {
    INFO(lacking);
    CHECK_FALSE(check_endorsement_key(public_area({.attributes = kEkAttributes & ~lacking})));
  }
  CHECK_FALSE(check_endorsement_key(public_area({.attributes = kEkAttributes | kSign})));
  CHECK_FALSE(check_endorsement_key(public_area({.name_alg = kSha1})));
  CHECK_FALSE(check_endorsement_key(public_area({.key_bits = 192})));
  CHECK_FALSE(check_endorsement_key(public_area({.mode = 0x0044})));   // ECB
  CHECK_FALSE(check_endorsement_key(public_area({.curve = 0x0004})));  // P-384, with a point of P-256
  CHECK_FALSE(check_endorsement_key(public_area({.curve = 0x0005})));
  CHECK_FALSE(check_endorsement_key(SigningKey().public_area()));
}

TEST_CASE("endorsement key: any byte less or more is malformed") {
  Bytes area = public_area();
  for (std::size_t size = 0; size < area.size(); ++size)
    REQUIRE_FALSE(check_endorsement_key(BytesView(area).first(size)));
  area.push_back(0);
  CHECK(check_endorsement_key(area).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("credential: its two parameters have the sizes of their structures, and are never the same") {
  const Bytes area = public_area(), name(34, 1);
  const auto first = make_credential(area, name, secret(32)),
             second = make_credential(area, name, secret(32));
  REQUIRE(first);
  REQUIRE(second);
  CHECK(first->encrypted_secret.size() == 2 + kPoint);
  CHECK(first->id_object.size() == 2 + (2 + 32) + (2 + 32));
  CHECK(get_be<std::uint16_t>(first->id_object, 0) == first->id_object.size() - 2);
  CHECK(first->encrypted_secret != second->encrypted_secret);
  CHECK(first->id_object != second->id_object);
}

TEST_CASE("credential: no Name, no secret, one that is too long and a key that is no EK are malformed") {
  const Bytes area = public_area(), name(34, 1);
  CHECK_FALSE(make_credential(area, {}, secret(32)));
  CHECK_FALSE(make_credential(area, Bytes(67, 1), secret(32)));
  CHECK_FALSE(make_credential(area, name, secret(0)));
  CHECK_FALSE(make_credential(area, name, secret(33)));
  CHECK(make_credential(area, name, secret(1)));
  CHECK_FALSE(make_credential(SigningKey().public_area(), name, secret(32)));
}

TEST_CASE("endorsement key certificate: what is no certificate is malformed") {
  const Bytes nothing, text(100, 'x');
  for (const BytesView bytes : {BytesView(nothing), BytesView(text)}) {
    CHECK(describe_certificate(bytes).error().kind() == ErrorCode::Malformed);
    CHECK(check_certified_key(bytes, public_area()).error().kind() == ErrorCode::Malformed);
    CHECK(check_certificate_chain(bytes, {}, "", 0).error().kind() == ErrorCode::Malformed);
  }
}
