// SPDX-License-Identifier: Apache-2.0
// What was lost or exchanged is Corrupt, never made anew silently; a TPM that does not fit is Configuration.
#include "daemon/anchor/attestation_key.h"
#include "daemon/anchor/record.h"
#include "tests/integration/anchor/fixture.h"

#include <vtpm/os/file.h>

#include <algorithm>

using namespace vtpm;
using namespace vtpm::test;

namespace {

void check_corrupt(const Machine& machine, const Error& error) {
  INFO(error.context);
  CHECK(error.kind() == ErrorCode::Corrupt);
  CHECK(error.context.find(anchor::record_path(machine.state_dir())) != std::string::npos);
}

Result<> clear(tss::Esys& esys) {
  return esys.call("TPM2_Clear", [](ESYS_CONTEXT* context) {
    return Esys_Clear(context, ESYS_TR_RH_LOCKOUT, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE);
  });
}

Result<> set_hierarchy_auth(tss::Esys& esys, ESYS_TR hierarchy) {
  TPM2B_AUTH auth{};
  auth.size = 4;
  std::fill_n(auth.buffer, auth.size, BYTE{0x61});  // a TPM strips zeros at the end
  return esys.call("TPM2_HierarchyChangeAuth", [&](ESYS_CONTEXT* context) {
    return Esys_HierarchyChangeAuth(context, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &auth);
  });
}

}  // namespace

TEST_CASE("anchor: a damaged anchor.json is Corrupt, and no other key is made") {
  REQUIRE_SWTPM();
  Machine machine;
  REQUIRE(machine.open().has_value());
  const auto esys = machine.esys();
  const auto before = occupancy(*esys);
  const std::string path = anchor::record_path(machine.state_dir());
  Bytes content = read_file(path, 4096).value();
  content.resize(content.size() / 2);
  REQUIRE(replace_file(path, content, 0600).has_value());
  const auto again = machine.open();
  REQUIRE(again.has_error());
  check_corrupt(machine, again.error());
  CHECK(occupancy(*esys) == before);
  CHECK(read_file(path, 4096).value() == content);
}

TEST_CASE("anchor: a key that was removed is Corrupt, also under an open anchor") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  const bool by_clear = GENERATE(false, true);
  REQUIRE((by_clear ? clear(*esys) : tss::evict(*esys, anchor::kFirstHandle)).has_value());
  check_corrupt(machine, (*anchor)->quote(kData).error());
  check_corrupt(machine, (*anchor)->quote(kData).error());
  check_corrupt(machine, machine.open().error());
  CHECK(occupancy(*esys).persistent.empty());
}

TEST_CASE("anchor: another key at its handle is Corrupt, also under an open anchor") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  REQUIRE(tss::evict(*esys, anchor::kFirstHandle).has_value());
  {
    const auto other = foreign_key(*esys, "impostor");
    REQUIRE(tss::persist(*esys, other.object, anchor::kFirstHandle).has_value());
  }
  check_corrupt(machine, (*anchor)->quote(kData).error());
  check_corrupt(machine, machine.open().error());
}

TEST_CASE("anchor: a quote whose signature is wrong is Corrupt") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  machine.intercept = [&](TPM2_CC code, BytesView command) -> std::optional<Result<Bytes>> {
    if (code != TPM2_CC_Quote) return std::nullopt;
    auto response = machine.transmit(command);
    // TPMT_SIGNATURE ends with the TPM2B of s, followed by the password session's 5 bytes.
    response.value()[response->size() - 6] ^= 1;
    return response;
  };
  check_corrupt(machine, (*anchor)->quote(kData).error());
  machine.intercept = nullptr;
  CHECK((*anchor)->quote(kData).has_value());
}

TEST_CASE("anchor: a TPM whose owner or endorsement hierarchy has an auth value is not configured for it") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto esys = machine.esys();
  const ESYS_TR hierarchy = GENERATE(ESYS_TR_RH_OWNER, ESYS_TR_RH_ENDORSEMENT);
  REQUIRE(set_hierarchy_auth(*esys, hierarchy).has_value());
  const auto anchor = machine.open();
  REQUIRE(anchor.has_error());
  CHECK(anchor.error().kind() == ErrorCode::Configuration);
  CHECK(occupancy(*esys).persistent.empty());
}

TEST_CASE("anchor: auth values that are set after its key was made do not matter") {
  REQUIRE_SWTPM();
  Machine machine;
  REQUIRE(machine.open().has_value());
  const auto esys = machine.esys();
  REQUIRE(set_hierarchy_auth(*esys, ESYS_TR_RH_OWNER).has_value());
  REQUIRE(set_hierarchy_auth(*esys, ESYS_TR_RH_ENDORSEMENT).has_value());
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  CHECK((*anchor)->quote(kData).has_value());
}

TEST_CASE("anchor: the state directory of an anchor of another kind is refused") {
  REQUIRE_SWTPM();
  Machine machine;
  REQUIRE(anchor::write_record(machine.state_dir(), {log::AnchorKind::Embedded, anchor::kFirstHandle,
                                                     Bytes(34, 1), Secret(Bytes(anchor::kAuthSize, 1))})
              .has_value());
  CHECK(machine.open().error().kind() == ErrorCode::Configuration);
}

TEST_CASE("anchor: a key whose record cannot be written is not left in the TPM") {
  REQUIRE_SWTPM();
  Machine machine;
  anchor::AnchorConfig config = machine.config();
  config.state_dir += "/missing";
  CHECK(machine.open(config).has_error());
  const auto esys = machine.esys();
  CHECK(occupancy(*esys).persistent.empty());
  CHECK(occupancy(*esys).transient.empty());
}

TEST_CASE("anchor: PCRs that do not exist are refused") {
  REQUIRE_SWTPM();
  Machine machine;
  anchor::AnchorConfig config = machine.config();
  config.pcrs = GENERATE(std::set<unsigned>{}, std::set<unsigned>{0, 24});
  CHECK(machine.open(config).error().kind() == ErrorCode::Configuration);
}
