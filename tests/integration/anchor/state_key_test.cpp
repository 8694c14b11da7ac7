// SPDX-License-Identifier: Apache-2.0
// The host state key: sealed in the TPM or in a file, always the same one, never made anew over a damaged
// one.
#include "daemon/anchor/state_key.h"

#include "tests/integration/anchor/fixture.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

using namespace vtpm;
using namespace vtpm::test;

namespace {

Bytes bytes_of(const Result<Secret>& secret) {
  REQUIRE(secret.has_value());
  return {secret->view().begin(), secret->view().end()};
}

// The key, from an anchor that is opened for it.
Bytes key_of(Machine& machine, const anchor::AnchorConfig& config) {
  const auto anchor = machine.open(config);
  REQUIRE(anchor.has_value());
  return bytes_of((*anchor)->state_key());
}
Bytes key_of(Machine& machine) {
  return key_of(machine, machine.config());
}

Error refusal(Machine& machine, const anchor::AnchorConfig& config) {
  const auto anchor = machine.open(config);
  REQUIRE(anchor.has_value());
  const auto key = (*anchor)->state_key();
  REQUIRE(key.has_error());
  INFO(key.error().context);
  CHECK(key.error().context.find(anchor::sealed_key_path(machine.state_dir())) != std::string::npos);
  return key.error();
}

Result<> extend(tss::Esys& esys, unsigned pcr) {
  TPML_DIGEST_VALUES values{};
  values.count = 1;
  values.digests[0].hashAlg = TPM2_ALG_SHA256;
  return esys.call("TPM2_PCR_Extend", [&](ESYS_CONTEXT* context) {
    return Esys_PCR_Extend(context, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                           &values);
  });
}

// Of the recorded sealed object: TPMT_PUBLIC; and where its storage key is.
struct Recorded {
  Bytes public_area;
  std::uint32_t parent_handle;
};
Recorded recorded(const Machine& machine) {
  const std::string text(as_text(read_file(anchor::sealed_key_path(machine.state_dir()), 8192).value()));
  const auto after = [&](std::string_view name) {
    const auto at = text.find(name);
    REQUIRE(at != std::string::npos);
    return text.substr(at + name.size());
  };
  const std::string area = after("\"public\":\"");
  return {from_hex(area.substr(0, area.find('"'))).value(),
          static_cast<std::uint32_t>(std::stoul(after("\"parent_handle\":")))};
}

// Of a TPM2_StartAuthSession: whether its keys are salted to a key of the TPM.
bool is_salted(BytesView command) {
  const std::size_t nonce = get_be<std::uint16_t>(command, 18);
  return get_be<std::uint32_t>(command, 10) != TPM2_RH_NULL && get_be<std::uint16_t>(command, 20 + nonce) > 0;
}

bool contains(BytesView bytes, BytesView part) {
  return !std::ranges::search(bytes, part).empty();
}

anchor::AnchorConfig sealed_to(const Machine& machine, std::set<unsigned> pcrs) {
  auto config = machine.config();
  config.seal_pcrs = std::move(pcrs);
  return config;
}

}  // namespace

TEST_CASE("state key: made at first use, then the same, and nothing stays in the TPM's slots") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  CHECK_FALSE((*anchor)->existing_state_key().value());
  const auto esys = machine.esys();
  const auto before = occupancy(*esys);
  const Bytes key = bytes_of((*anchor)->state_key());
  CHECK(key.size() == anchor::kStateKeySize);
  auto after = occupancy(*esys);
  CHECK(after.persistent.size() == before.persistent.size() + 1);
  after.persistent = before.persistent;
  CHECK(after == before);
  CHECK(bytes_of((*anchor)->state_key()) == key);
  CHECK(key_of(machine) == key);
  CHECK((*anchor)->existing_state_key().value());
  struct stat status {};
  REQUIRE(::stat(anchor::sealed_key_path(machine.state_dir()).c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("state key: two machines have two") {
  REQUIRE_SWTPM();
  Machine one;
  Machine two;
  CHECK(key_of(one) != key_of(two));
}

TEST_CASE("state key: it never crosses the bus in the clear") {
  REQUIRE_SWTPM();
  Machine machine;
  Bytes traffic;
  std::size_t sessions = 0;
  machine.intercept = [&](TPM2_CC code, BytesView command) -> std::optional<Result<Bytes>> {
    if (code == TPM2_CC_StartAuthSession) {
      ++sessions;
      CHECK(is_salted(command));  // or who listens knows the keys that it is encrypted with
    }
    auto response = machine.transmit(command);
    put(traffic, command);
    if (response) put(traffic, *response);
    return response;
  };
  const Bytes key = key_of(machine);
  CHECK(key_of(machine) == key);
  CHECK(sessions >= 2);
  CHECK(traffic.size() > 1000);
  CHECK_FALSE(contains(traffic, key));
}

TEST_CASE("state key: a storage key that the bus puts in the place of ours gets no salt") {
  REQUIRE_SWTPM();
  Machine machine;
  Machine other;
  key_of(machine);
  key_of(other);
  const std::uint32_t handle = recorded(machine).parent_handle;
  REQUIRE(recorded(other).parent_handle == handle);
  bool begun = false;
  machine.intercept = [&](TPM2_CC code, BytesView command) -> std::optional<Result<Bytes>> {
    begun = begun || code == TPM2_CC_StartAuthSession;
    if (code == TPM2_CC_ReadPublic && get_be<std::uint32_t>(command, 10) == handle)
      return other.transmit(command);
    return std::nullopt;
  };
  CHECK(refusal(machine, machine.config()).kind() == ErrorCode::Corrupt);
  CHECK_FALSE(begun);
}

TEST_CASE("state key: the sealed object is as FORMATS.md has it") {
  REQUIRE_SWTPM();
  Machine machine;
  const bool to_pcrs = GENERATE(true, false);
  key_of(machine, to_pcrs ? sealed_to(machine, {7}) : machine.config());
  const Bytes area = recorded(machine).public_area;
  CHECK(get_be<std::uint16_t>(area, 0) == TPM2_ALG_KEYEDHASH);
  CHECK(get_be<std::uint32_t>(area, 4) == (TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA |
                                           (to_pcrs ? 0 : TPMA_OBJECT_USERWITHAUTH)));
  CHECK(get_be<std::uint16_t>(area, 8) == (to_pcrs ? 32 : 0));  // authPolicy
}

TEST_CASE("state key: a damaged file is Corrupt and kept, and no other key is made") {
  REQUIRE_SWTPM();
  Machine machine;
  key_of(machine);
  const std::string path = anchor::sealed_key_path(machine.state_dir());
  std::string text(as_text(read_file(path, 8192).value()));
  switch (GENERATE(0, 1, 2, 3)) {
    case 0:
      text.resize(text.size() / 2);
      break;
    case 1:
      text.clear();
      break;
    default: {  // a digit in the middle of the private and of the public area
      const auto at = text.find(GENERATE(std::string("\"private\""), std::string("\"public\"")));
      REQUIRE(at != std::string::npos);
      char& digit = text[at + 100];
      digit = digit == '0' ? '1' : '0';
    }
  }
  REQUIRE(replace_file(path, as_bytes(text), 0600).has_value());
  CHECK(refusal(machine, machine.config()).kind() == ErrorCode::Corrupt);
  CHECK(as_text(read_file(path, 8192).value()) == text);
}

TEST_CASE("state key: another TPM's file is Corrupt") {
  REQUIRE_SWTPM();
  Machine one;
  Machine two;
  key_of(one);
  const Bytes file = read_file(anchor::sealed_key_path(one.state_dir()), 8192).value();
  // With a storage key of its own at the same handle, and without one.
  if (GENERATE(true, false)) key_of(two);
  REQUIRE(replace_file(anchor::sealed_key_path(two.state_dir()), file, 0600).has_value());
  CHECK(refusal(two, two.config()).kind() == ErrorCode::Corrupt);
}

TEST_CASE("state key: sealed to PCRs, it is refused when one of them has another value") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto config = sealed_to(machine, {7, 16});
  const Bytes key = key_of(machine, config);
  CHECK(key_of(machine, config) == key);
  REQUIRE(extend(*machine.esys(), 23).has_value());
  CHECK(key_of(machine, config) == key);
  REQUIRE(extend(*machine.esys(), 16).has_value());
  const Error error = refusal(machine, config);
  CHECK(error.kind() == ErrorCode::Configuration);
  CHECK(error.context.find("PCRs 7, 16") != std::string::npos);
  // Asking for none does not open it either.
  CHECK(refusal(machine, machine.config()).kind() == ErrorCode::Configuration);
}

TEST_CASE("state key: it is sealed again to the PCRs that are asked for") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto config = sealed_to(machine, {16});
  const Bytes key = key_of(machine, config);
  // Before an update: to none. After it: to the new values.
  CHECK(key_of(machine) == key);
  REQUIRE(extend(*machine.esys(), 16).has_value());
  CHECK(key_of(machine) == key);
  CHECK(key_of(machine, config) == key);
  REQUIRE(extend(*machine.esys(), 16).has_value());
  CHECK(refusal(machine, config).kind() == ErrorCode::Configuration);
}

TEST_CASE("state key: one that cannot be sealed to other PCRs is had all the same, and it is told") {
  REQUIRE_SWTPM();
  Machine machine;
  const Bytes key = key_of(machine, sealed_to(machine, {16}));
  const std::string in_the_way = anchor::sealed_key_path(machine.state_dir()) + ".new";
  REQUIRE(::mkdir(in_the_way.c_str(), 0700) == 0);
  std::string told;
  auto config = machine.config();
  config.report = [&](std::string_view text) { told = text; };
  CHECK(key_of(machine, config) == key);
  CHECK(told.find(anchor::sealed_key_path(machine.state_dir())) != std::string::npos);
  REQUIRE(::rmdir(in_the_way.c_str()) == 0);
  told.clear();
  CHECK(key_of(machine, config) == key);
  CHECK(told.empty());
}

TEST_CASE("state key: a file that cannot be written leaves no key in the TPM") {
  REQUIRE_SWTPM();
  Machine machine;
  const auto anchor = machine.open();
  REQUIRE(anchor.has_value());
  const auto esys = machine.esys();
  const auto before = occupancy(*esys);
  // A directory of that name cannot be replaced.
  REQUIRE(::mkdir((anchor::sealed_key_path(machine.state_dir()) + ".new").c_str(), 0700) == 0);
  CHECK((*anchor)->state_key().has_error());
  CHECK(occupancy(*esys) == before);
}

TEST_CASE("state key: PCRs that no TPM has are a wrong configuration") {
  REQUIRE_SWTPM();
  Machine machine;
  CHECK(machine.open(sealed_to(machine, {24})).error().kind() == ErrorCode::Configuration);
}

TEST_CASE("state key without a TPM: a file of mode 0600, whose damage is Corrupt") {
  TempDir directory;
  CHECK_FALSE(anchor::load_plain_key(directory.path()).value());
  const Bytes key = bytes_of(anchor::make_plain_key(directory.path()));
  const auto again = anchor::load_plain_key(directory.path());
  REQUIRE(again.has_value());
  CHECK(std::ranges::equal((*again)->view(), key));
  const std::string path = anchor::plain_key_path(directory.path());
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  const Bytes good = read_file(path, 4096).value();
  for (std::size_t i = 0; i <= good.size(); ++i) {
    Bytes bad = good;
    if (i < good.size())
      bad[i] ^= 1;
    else
      bad.pop_back();
    REQUIRE(replace_file(path, bad, 0600).has_value());
    const auto refused = anchor::load_plain_key(directory.path());
    REQUIRE(refused.has_error());
    CHECK(refused.error().kind() == ErrorCode::Corrupt);
    CHECK(refused.error().context.find(path) != std::string::npos);
  }
}
