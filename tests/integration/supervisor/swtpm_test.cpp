// SPDX-License-Identifier: Apache-2.0
// vtpmd anchored in another TPM: evidence names hardware, and a TPM that vanishes is reported and comes back.
#include "tests/integration/supervisor/json_call.h"
#include "tests/support/skip.h"

#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>

#include <signal.h>

#include <chrono>
#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

const std::string kNonce = "00112233445566778899aabbccddeeff";

std::uint64_t now() {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
}

// swtpm's sockets are its user's: the daemon's user must reach them.
void open_sockets(const std::string& directory) {
  using std::filesystem::perms;
  std::filesystem::permissions(directory, perms::all);
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    if (entry.is_socket()) std::filesystem::permissions(entry.path(), perms::all);
}

}  // namespace

TEST_CASE("vtpmd with a TPM: evidence verifies to it, its end is reported, and its return is noticed") {
  if (!has_program("swtpm")) VTPM_SKIP("swtpm is not installed");
  const TempDir chip;
  auto swtpm = Swtpm::start(chip.path());
  open_sockets(chip.path());
  const Place place;
  const auto daemon = Daemon::start(place, swtpm->tcti());
  INFO(place.log());
  REQUIRE(daemon->ready());
  const auto anchor = call(*daemon, "GET", "/v1/anchor");
  CHECK(anchor["kind"] == "tpm");
  CHECK(anchor["description"].get<std::string>().starts_with("TPM: "));

  const std::string id = create(*daemon), target = "/v1/instances/" + id + "/evidence";
  const std::string body = R"({"nonce":")" + kNonce + R"(","fresh":true})";
  const auto document = daemon->client().call("POST", target, body);
  REQUIRE(document);
  const auto parsed = evidence::parse_evidence(*document);
  REQUIRE(parsed);
  const auto policy = evidence::policy_from_evidence(*parsed);
  REQUIRE(policy);
  CHECK_FALSE(policy->allow_embedded_anchor);
  const auto verdict = evidence::verify(*document, *policy, {*from_hex(kNonce), now()});
  for (const auto& reason : verdict.reasons())
    UNSCOPED_INFO(reason);
  CHECK(verdict.verified());

  swtpm->kill();
  const unsigned failed = status_of(*daemon, "POST", target, body);
  CHECK((failed == 502 || failed == 503));
  const auto gone = call(*daemon, "GET", "/v1/anchor");
  CHECK(gone["state"] != "ready");
  CHECK(gone["failures"] >= 1);
  CHECK_FALSE(gone["reason"].is_null());
  CHECK(call(*daemon, "GET", "/v1/instances/" + id)["state"] == "running");

  swtpm = Swtpm::start(chip.path());
  open_sockets(chip.path());
  CHECK(eventually([&] { return status_of(*daemon, "POST", target, body) == 200; }));
  CHECK(call(*daemon, "GET", "/v1/anchor")["state"] == "ready");
}

TEST_CASE("vtpmd with a TPM that hangs: it stops, although a durable instance waits for the host key") {
  if (!has_program("swtpm")) VTPM_SKIP("swtpm is not installed");
  const TempDir chip;
  const auto swtpm = Swtpm::start(chip.path());
  open_sockets(chip.path());
  const Place place;
  const auto daemon = Daemon::start(place, swtpm->tcti());
  INFO(place.log());
  REQUIRE(daemon->ready());
  swtpm->signal(SIGSTOP);
  std::thread asks([client = daemon->client()] {
    (void)client.call("POST", "/v1/instances", R"({"durable":true,"name":"keep"})");
  });
  std::this_thread::sleep_for(std::chrono::seconds(1));  // nothing shows an instance that is being made
  CHECK(daemon->stop(SIGTERM) == 0);
  asks.join();
  swtpm->signal(SIGCONT);
}
