// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"
#include "tests/support/evidence_builder.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/attest.h>

using namespace vtpm;
using namespace vtpm::tpm;
using namespace vtpm::test;

namespace {

QuotePlan quote_plan() {
  QuotePlan plan;
  plan.extra_data = Bytes(32, 9);
  plan.pcrs = {{0, Sha256{}}, {17, sha256(as_bytes("17"))}, {23, sha256(as_bytes("23"))}};
  return plan;
}

constexpr std::uint32_t kRestricted = 1U << 16, kDecrypt = 1U << 17, kSign = 1U << 18, kFixedTpm = 1U << 1,
                        kFixedParent = 1U << 4, kSensitiveDataOrigin = 1U << 5;

}  // namespace

TEST_CASE("pcr digest: it is over the values in ascending order of their index") {
  CHECK(pcr_digest({}) == sha256(BytesView()));
  const Sha256 a = sha256(as_bytes("a")), b = sha256(as_bytes("b"));
  CHECK(pcr_digest({{10, b}, {2, a}}) == sha256({a, b}));
}

TEST_CASE("name: it is the nameAlg and the digest of the public area") {
  const Bytes area = SigningKey().public_area();
  const auto name = name_of_public(area);
  REQUIRE(name);
  CHECK(to_hex(*name) == "000b" + to_hex(sha256(area)));
}

TEST_CASE("name: another nameAlg, trailing, missing and no bytes are malformed") {
  Bytes area = SigningKey().public_area(kAkAttributes, kAlgSha256, 0x000c);
  CHECK_FALSE(name_of_public(area));
  area = SigningKey().public_area();
  for (std::size_t size = 0; size < area.size(); ++size)
    REQUIRE_FALSE(name_of_public(BytesView(area).first(size)));
  area.push_back(0);
  CHECK(name_of_public(area).error().kind() == ErrorCode::Malformed);
  CHECK_FALSE(name_of_public(Bytes(5000, 0)));
}

TEST_CASE("attestation key: a restricted signing P-256 key of its TPM is one") {
  CHECK(check_attestation_key(SigningKey().public_area()));
}

TEST_CASE("attestation key: a key that lacks an attribute, or can decrypt, is none") {
  const SigningKey key;
  for (const auto lacking : {kRestricted, kSign, kFixedTpm, kFixedParent, kSensitiveDataOrigin}) {
    INFO(lacking);
    CHECK_FALSE(check_attestation_key(key.public_area(kAkAttributes & ~lacking)));
  }
  CHECK_FALSE(check_attestation_key(key.public_area(kAkAttributes | kDecrypt)));
}

TEST_CASE("attestation key: another hash in its scheme or Name is none") {
  CHECK_FALSE(check_attestation_key(SigningKey().public_area(kAkAttributes, 0x000c)));
  CHECK_FALSE(check_attestation_key(SigningKey().public_area(kAkAttributes, kAlgSha256, 0x000c)));
}

TEST_CASE("quote: what it says is parsed") {
  const QuotePlan plan = quote_plan();
  const auto quote = parse_quote(make_quote(plan));
  REQUIRE(quote);
  CHECK(quote->extra_data == plan.extra_data);
  CHECK(quote->pcrs == std::vector<unsigned>{0, 17, 23});
  CHECK(to_hex(quote->pcr_digest) == to_hex(pcr_digest(plan.pcrs)));
  CHECK(quote->clock == 123456);
  CHECK(quote->reset_count == 3);
  CHECK(quote->restart_count == 1);
  CHECK(quote->safe);
  CHECK(quote->firmware_version == 0x2024);
}

TEST_CASE("quote: a wrong magic, another type or another bank is malformed") {
  QuotePlan plan = quote_plan();
  plan.magic ^= 1;
  CHECK(parse_quote(make_quote(plan)).error().kind() == ErrorCode::Malformed);
  plan = quote_plan();
  plan.type = 0x8019;  // TPM_ST_ATTEST_TIME
  CHECK(parse_quote(make_quote(plan)).error().kind() == ErrorCode::Malformed);
  plan = quote_plan();
  plan.bank = 0x0004;  // SHA-1
  CHECK(parse_quote(make_quote(plan)).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("quote: bytes cut off or added are malformed") {
  Bytes quote = make_quote(quote_plan());
  for (std::size_t size = 0; size < quote.size(); ++size)
    REQUIRE_FALSE(parse_quote(BytesView(quote).first(size)));
  quote.push_back(0);
  CHECK_FALSE(parse_quote(quote));
}

TEST_CASE("signature: a key's own signature over the same bytes verifies, and no other") {
  const SigningKey key, other;
  const Bytes message = make_quote(quote_plan());
  const Bytes signature = key.sign(message);
  CHECK(verify_signature(key.public_area(), message, signature));
  CHECK(verify_signature(other.public_area(), message, signature).error().kind() == ErrorCode::NotVerified);
  Bytes changed = message;
  changed.back() ^= 1;
  CHECK(verify_signature(key.public_area(), changed, signature).error().kind() == ErrorCode::NotVerified);
  CHECK_FALSE(verify_signature(key.public_area(), {}, signature));
}

TEST_CASE("signature: no changed byte of a signature verifies") {
  const SigningKey key;
  const Bytes message(100, 3);
  const Bytes signature = key.sign(message);
  for (std::size_t at = 0; at < signature.size(); ++at)
    for (const unsigned bit : {0U, 3U, 7U}) {
      Bytes changed = signature;
      changed[at] = static_cast<std::uint8_t>(changed[at] ^ (1U << bit));
      REQUIRE_FALSE(verify_signature(key.public_area(), message, changed));
    }
}

TEST_CASE("signature: other algorithms, trailing bytes and a point off the curve are malformed") {
  const SigningKey key;
  const Bytes message(10, 1);
  Bytes signature = key.sign(message);
  const auto kind = [&](const Bytes& area, const Bytes& sig) {
    return verify_signature(area, message, sig).error().kind();
  };
  signature.push_back(0);
  CHECK(kind(key.public_area(), signature) == ErrorCode::Malformed);
  signature.pop_back();
  CHECK(kind(key.public_area(), {}) == ErrorCode::Malformed);
  Bytes sha384 = signature;
  sha384[3] = 0x0c;
  CHECK(kind(key.public_area(), sha384) == ErrorCode::Malformed);
  Bytes area = key.public_area();
  area.back() ^= 1;  // the last byte of y
  CHECK(kind(area, signature) == ErrorCode::Malformed);
}

TEST_CASE("public key: it is written as PEM for other tools") {
  const auto pem = public_key_pem(SigningKey().public_area());
  REQUIRE(pem);
  CHECK(pem->starts_with("-----BEGIN PUBLIC KEY-----\n"));
  CHECK(pem->ends_with("-----END PUBLIC KEY-----\n"));
  CHECK_FALSE(public_key_pem(Bytes(10, 0)));
}
