// SPDX-License-Identifier: Apache-2.0
// A TPM that others use too: full slots, retries, PCRs that change, answers that are none.
#include "tests/integration/anchor/fixture.h"

#include <vtpm/tpm/attest.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

// Long enough for several tries, short enough for a test that waits for the end of it.
constexpr tss::Esys::Patience kShort{50};

Result<> extend(tss::Esys& esys, unsigned pcr) {
  TPML_DIGEST_VALUES values{};
  values.count = 1;
  values.digests[0].hashAlg = TPM2_ALG_SHA256;
  return esys.call("TPM2_PCR_Extend", [&](ESYS_CONTEXT* context) {
    return Esys_PCR_Extend(context, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                           &values);
  });
}

}  // namespace

TEST_CASE("anchor: slots that somebody else fills are Busy until they are free") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open(machine.config(), kShort);
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  std::vector<tss::CreatedPrimary> others;
  for (const char* domain : {"one", "two", "three"})
    others.push_back(foreign_key(*esys, domain));
  const auto full = occupancy(*esys);
  CHECK(full.transient.size() == 3);

  const auto refused = (*anchor)->quote(kData);
  REQUIRE(refused.has_error());
  CHECK(refused.error().kind() == ErrorCode::Busy);
  CHECK(machine.open(machine.config(), kShort).error().kind() == ErrorCode::Busy);
  CHECK(occupancy(*esys) == full);

  others.pop_back();
  CHECK((*anchor)->quote(kData).has_value());
}

TEST_CASE("anchor: slots that become free while it waits are enough") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  std::vector<tss::CreatedPrimary> others;
  for (const char* domain : {"one", "two", "three"})
    others.push_back(foreign_key(*esys, domain));
  int quotes = 0;
  machine.intercept = [&](TPM2_CC code, BytesView) -> std::optional<Result<Bytes>> {
    if (code == TPM2_CC_Quote && ++quotes == 3) others.clear();
    return std::nullopt;
  };
  CHECK((*anchor)->quote(kData).has_value());
  CHECK(quotes == 3);
}

TEST_CASE("anchor: codes that ask for patience get it") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const TPM2_RC code = GENERATE(TPM2_RC_RETRY, TPM2_RC_SESSION_HANDLES, TPM2_RC_OBJECT_MEMORY,
                                TPM2_RC_NV_RATE, TPM2_RC_TESTING);
  int left = 4;
  machine.intercept = [&](TPM2_CC command, BytesView) -> std::optional<Result<Bytes>> {
    if (command != TPM2_CC_Quote || left-- <= 0) return std::nullopt;
    return Result<Bytes>(answer(code));
  };
  CHECK((*anchor)->quote(kData).has_value());
  CHECK(left < 0);
}

TEST_CASE("anchor: PCRs that change between quote and reading are quoted again") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  int changes = 2;
  machine.intercept = [&](TPM2_CC code, BytesView) -> std::optional<Result<Bytes>> {
    if (code == TPM2_CC_PCR_Read && changes-- > 0) CHECK(extend(*esys, 7).has_value());
    return std::nullopt;
  };
  const auto quote = (*anchor)->quote(kData);
  REQUIRE(quote.has_value());
  const auto digest = tpm::pcr_digest(quote->pcrs);
  CHECK(tpm::parse_quote(quote->quote)->pcr_digest == Bytes(digest.begin(), digest.end()));

  changes = 1000;
  const auto never = (*anchor)->quote(kData);
  REQUIRE(never.has_error());
  CHECK(never.error().kind() == ErrorCode::Busy);
}

TEST_CASE("anchor: a TPM that breaks the protocol is an error, and harmless to the next call") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto nonsense = GENERATE(Bytes{}, Bytes(3, 0xff), Bytes(10, 0), Bytes(4096, 0x41),
                                 Bytes{0x80, 0x02, 0, 0, 0, 14, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff});
  machine.intercept = [&](TPM2_CC code, BytesView) -> std::optional<Result<Bytes>> {
    if (code != TPM2_CC_Quote && code != TPM2_CC_PCR_Read) return std::nullopt;
    return Result<Bytes>(nonsense);
  };
  CHECK((*anchor)->quote(kData).has_error());
  CHECK((*anchor)->read_pcrs().has_error());
  machine.intercept = nullptr;
  CHECK((*anchor)->quote(kData).has_value());
}
