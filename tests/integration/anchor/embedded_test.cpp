// SPDX-License-Identifier: Apache-2.0
// The embedded anchor on a real engine.
#include "daemon/anchor/anchor.h"
#include "daemon/anchor/connection.h"
#include "daemon/anchor/record.h"
#include "tests/support/swtpm.h"

#include <vtpm/os/file.h>
#include <vtpm/tpm/attest.h>

#include <catch2/catch.hpp>
#include <sys/stat.h>
#include <unistd.h>

using namespace vtpm;
using namespace vtpm::anchor;

namespace {

const tpm::Sha256 kData = tpm::sha256(as_bytes("qualifying data"));

struct Host {
  test::TempDir state;
  std::unique_ptr<ipc::Zygote> zygote =
      std::move(ipc::Zygote::start(VTPM_BIN_DIR "/vtpm-engine", STDERR_FILENO).value());

  SpawnEngine spawn() {
    return [this] { return zygote->spawn(); };
  }
  Result<std::unique_ptr<Anchor>> open() {
    AnchorConfig config;
    config.embedded = true;
    config.state_dir = state.path();
    return open_anchor(config, spawn());
  }
  std::string state_path() const { return embedded_state_path(state.path()); }
};

tpm::Quote checked(Anchor& anchor) {
  const auto quote = anchor.quote(kData);
  REQUIRE(quote.has_value());
  CHECK(tpm::verify_signature(anchor.identity().ak_public, quote->quote, quote->signature).has_value());
  const auto digest = tpm::pcr_digest(quote->pcrs);
  auto parsed = tpm::parse_quote(quote->quote);
  REQUIRE(parsed.has_value());
  CHECK(parsed->pcr_digest == Bytes(digest.begin(), digest.end()));
  return std::move(*parsed);
}

void check_corrupt(const Error& error, const std::string& path) {
  INFO(error.context);
  CHECK(error.kind() == ErrorCode::Corrupt);
  CHECK(error.context.find(path) != std::string::npos);
}

}  // namespace

TEST_CASE("embedded anchor: its key and reset count survive a new start") {
  Host host;
  Bytes name;
  std::uint32_t resets = 0;
  {
    const auto first = host.open();
    REQUIRE(first.has_value());
    CHECK((*first)->identity().kind == log::AnchorKind::Embedded);
    name = (*first)->identity().ak_name;
    resets = checked(**first).reset_count;
    const bool orderly = GENERATE(true, false);
    if (orderly) REQUIRE((*first)->close().has_value());
  }
  struct stat status {};
  REQUIRE(::stat(host.state_path().c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  const auto second = host.open();
  REQUIRE(second.has_value());
  CHECK((*second)->identity().ak_name == name);
  CHECK(checked(**second).reset_count == resets + 1);
}

TEST_CASE("embedded anchor: its state key is a file and stays the same") {
  Host host;
  Bytes key;
  for (int start = 0; start < 2; ++start) {
    const auto anchor = host.open();
    REQUIRE(anchor.has_value());
    CHECK((*anchor)->existing_state_key().value().has_value() == (start > 0));
    const auto secret = (*anchor)->state_key();
    REQUIRE(secret.has_value());
    const Bytes now(secret->view().begin(), secret->view().end());
    if (start > 0) CHECK(now == key);
    key = now;
  }
}

TEST_CASE("embedded anchor: two of them are two TPMs") {
  Host one;
  Host two;
  const auto first = one.open();
  const auto second = two.open();
  REQUIRE(first.has_value());
  REQUIRE(second.has_value());
  CHECK((*first)->identity().ak_name != (*second)->identity().ak_name);
}

TEST_CASE("embedded anchor: damaged state is Corrupt, named and kept") {
  Host host;
  {
    const auto anchor = host.open();
    REQUIRE(anchor.has_value());
    REQUIRE((*anchor)->close().has_value());
  }
  const Bytes good = read_file(host.state_path(), 1 << 20).value();
  Bytes bad = good;
  switch (GENERATE(0, 1, 2, 3, 4)) {
    case 0:
      bad.clear();
      break;
    case 1:
      bad.resize(bad.size() / 2);
      break;
    case 2:
      bad[0] ^= 1;
      break;
    case 3:
      bad[20] ^= 1;  // of the digest
      break;
    default:
      bad[bad.size() - 100] ^= 1;
  }
  REQUIRE(replace_file(host.state_path(), bad, 0600).has_value());
  check_corrupt(host.open().error(), host.state_path());
  CHECK(read_file(host.state_path(), 1 << 20).value() == bad);
  REQUIRE(replace_file(host.state_path(), good, 0600).has_value());
  CHECK(host.open().has_value());
}

TEST_CASE("embedded anchor: a state that libtpms refuses is Corrupt") {
  Host host;
  REQUIRE(host.open().has_value());
  const Bytes blob(1500, 0x5a);
  Bytes file;
  put(file, as_bytes("VTPMEMB1"));
  put(file, tpm::sha256(blob));
  put(file, blob);
  REQUIRE(replace_file(host.state_path(), file, 0600).has_value());
  check_corrupt(host.open().error(), host.state_path());
}

TEST_CASE("embedded anchor: a state that is gone is not made anew") {
  Host host;
  REQUIRE(host.open().has_value());
  REQUIRE(::unlink(host.state_path().c_str()) == 0);
  check_corrupt(host.open().error(), host.state_path());
  CHECK(::access(host.state_path().c_str(), F_OK) != 0);
}

TEST_CASE("embedded anchor: the state of another TPM is Corrupt") {
  Host host;
  Host other;
  REQUIRE(host.open().has_value());
  REQUIRE(other.open().has_value());
  const Bytes state = read_file(other.state_path(), 1 << 20).value();
  REQUIRE(replace_file(host.state_path(), state, 0600).has_value());
  check_corrupt(host.open().error(), record_path(host.state.path()));
}

TEST_CASE("anchor: embedded and a TCTI together, or neither, is a mistake in the configuration") {
  Host host;
  AnchorConfig config;
  config.state_dir = host.state.path();
  CHECK(open_anchor(config, host.spawn()).error().kind() == ErrorCode::Configuration);
  config.embedded = true;
  config.tcti = "device:/dev/tpmrm0";
  CHECK(open_anchor(config, host.spawn()).error().kind() == ErrorCode::Configuration);
}
