// SPDX-License-Identifier: Apache-2.0
// One vtpmd with the embedded anchor: what a client sees of an instance's life.
#include "tests/integration/supervisor/json_call.h"

#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>

#include <signal.h>

#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

const std::string kImage = "sha256:" + std::string(64, 'a');
const std::string kNonce = "00112233445566778899aabbccddeeff";

std::uint64_t now() {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
}

evidence::Verdict verify(const std::string& document, const std::string& nonce, bool fresh) {
  const auto parsed = evidence::parse_evidence(document);
  REQUIRE(parsed);
  auto policy = evidence::policy_from_evidence(*parsed);
  REQUIRE(policy);
  policy->require_fresh = fresh;
  return evidence::verify(document, *policy, {*from_hex(nonce), now()});
}

std::string attest(const Daemon& daemon, const std::string& id, const std::string& nonce, bool fresh) {
  const std::string body = R"({"nonce":")" + nonce + R"(","fresh":)" + (fresh ? "true}" : "false}");
  const auto document = daemon.client().call("POST", "/v1/instances/" + id + "/evidence", body);
  INFO((document ? "" : document.error().context));
  REQUIRE(document);
  return *document;
}

void check_verified(const evidence::Verdict& verdict) {
  for (const auto& reason : verdict.reasons())
    UNSCOPED_INFO(reason);
  CHECK(verdict.verified());
}

}  // namespace

TEST_CASE("vtpmd: an instance is made, found by id, name and prefix, and destroyed") {
  const Place place;
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  const auto made =
      call(*daemon, "POST", "/v1/instances", R"({"name":"web","container":"c1","image":")" + kImage + "\"}");
  const std::string id = made["id"];
  CHECK(made["state"] == "running");
  CHECK(made["image"] == kImage);
  CHECK(made["durable"] == false);
  CHECK(made["nodes"].empty());
  CHECK(made["ek_name"].get<std::string>().size() == 68);
  for (const std::string& reference : {id, std::string("web"), id.substr(0, 6)})
    CHECK(call(*daemon, "GET", "/v1/instances/" + reference)["id"] == id);
  const std::string other = create(*daemon);
  CHECK(call(*daemon, "GET", "/v1/instances/" + other)["ek_name"] != made["ek_name"]);
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].size() == 2);
  CHECK(status_of(*daemon, "POST", "/v1/instances", R"({"name":"web"})") == 409);

  CHECK(call(*daemon, "DELETE", "/v1/instances/web")["state"] == "destroyed");
  CHECK(status_of(*daemon, "GET", "/v1/instances/" + id) == 404);
  CHECK(status_of(*daemon, "DELETE", "/v1/instances/" + id) == 404);
  CHECK(call(*daemon, "GET", "/v1/instances")["instances"].size() == 1);
}

TEST_CASE("vtpmd: evidence verifies, fresh or not, and only for its nonce") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon, R"({"image":")" + kImage + "\"}");
  const bool fresh = GENERATE(true, false);
  const std::string document = attest(*daemon, id, kNonce, fresh);
  const auto verdict = verify(document, kNonce, fresh);
  check_verified(verdict);
  REQUIRE(verdict.launch);
  CHECK(verdict.launch->instance == id);
  CHECK(verdict.launch->image == kImage);
  CHECK(verdict.anchor == log::AnchorKind::Embedded);
  CHECK_FALSE(verify(document, "ff112233445566778899aabbccddeeff", fresh).verified());
}

TEST_CASE("vtpmd: many verifiers at once share few epochs, and each has a proof of its own nonce") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon);
  std::vector<std::string> documents(24);
  std::vector<std::thread> verifiers;
  for (std::size_t i = 0; i < documents.size(); ++i)
    verifiers.emplace_back([&, i] {
      const std::string nonce = to_hex(Bytes(16, static_cast<std::uint8_t>(i)));
      const auto answer = daemon->client().call("POST", "/v1/instances/" + id + "/evidence",
                                                R"({"nonce":")" + nonce + R"(","fresh":true})");
      if (answer) documents[i] = *answer;
    });
  for (auto& verifier : verifiers)
    verifier.join();
  for (std::size_t i = 0; i < documents.size(); ++i)
    check_verified(verify(documents[i], to_hex(Bytes(16, static_cast<std::uint8_t>(i))), true));
}

TEST_CASE("vtpmd: a measurement is in PCR 18, the event log and the evidence") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon);
  const std::string digest(64, 'b');
  const std::string body = R"({"pcr":18,"digest":")" + digest + R"(","description":"a statement"})";
  const auto events = call(*daemon, "POST", "/v1/instances/" + id + "/measurements", body);
  REQUIRE(events.size() == 2);
  CHECK(events[1]["pcr"] == 18);
  CHECK(call(*daemon, "GET", "/v1/instances/" + id + "/eventlog") == events);
  const std::string document = attest(*daemon, id, kNonce, true);
  check_verified(verify(document, kNonce, true));
  const auto parsed = evidence::parse_evidence(document);
  CHECK(parsed->vtpm.pcrs.at(18) == tpm::extend({}, *tpm::sha256_from_hex(digest)));
}

TEST_CASE("vtpmd: an engine that is killed is reported, listed as failed, and deleted on request") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon), other = create(*daemon);
  const auto pid = call(*daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
  REQUIRE(pid > 1);
  REQUIRE(::kill(pid, SIGKILL) == 0);
  CHECK(eventually([&] { return call(*daemon, "GET", "/v1/instances/" + id)["state"] == "failed"; }));
  const auto told = [&] {
    const auto reason = call(*daemon, "GET", "/v1/instances/" + id)["reason"].get<std::string>();
    return reason.find("signal 9") != std::string::npos;
  };
  CHECK(eventually(told));
  CHECK(place.log().find(id) != std::string::npos);
  const std::string evidence = "/v1/instances/" + id + "/evidence";
  CHECK(status_of(*daemon, "POST", evidence, R"({"nonce":"0011223344556677"})") == 409);
  check_verified(verify(attest(*daemon, other, kNonce, false), kNonce, false));
  CHECK(call(*daemon, "DELETE", "/v1/instances/" + id)["state"] == "destroyed");
  CHECK(status_of(*daemon, "GET", "/v1/instances/" + id) == 404);
}

TEST_CASE("vtpmd: anchor, log, proofs, metrics and health answer") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto anchor = call(*daemon, "GET", "/v1/anchor");
  CHECK(anchor["kind"] == "embedded");
  CHECK(anchor["description"] == "software, not hardware");
  CHECK(anchor["state"] == "ready");
  CHECK(anchor["epoch"]["tree_size"] == 1);
  create(*daemon);
  const auto head = call(*daemon, "GET", "/v1/log/head");
  CHECK(head["size"] == 2);
  const auto entries = call(*daemon, "GET", "/v1/log/entries?start=1&count=5")["entries"];
  REQUIRE(entries.size() == 1);
  const std::string entry = entries[0]["entry"];
  const auto proof = call(*daemon, "GET", "/v1/log/proof?index=1");
  log::Path path;
  for (const auto& hash : proof["path"])
    path.push_back(*tpm::sha256_from_hex(hash.get<std::string>()));
  const auto root = *tpm::sha256_from_hex(head["root"].get<std::string>());
  CHECK(log::verify_inclusion(log::leaf_hash(as_bytes(entry)), 1, 2, path, root));
  CHECK(daemon->client().call("GET", "/metrics")->find("\nvtpm_instances_running 1\n") != std::string::npos);
  CHECK(call(*daemon, "GET", "/healthz")["status"] == "ok");
}

TEST_CASE("vtpmd: events tell what happens") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  std::vector<json::Value> seen;
  std::thread listener([&] {
    const auto ended = daemon->client().stream("/v1/events", [&](std::string_view event) {
      seen.push_back(*json::parse(event, 4096));
      return seen.size() < 2;
    });
  });
  // The listener is counted once its subscription exists; events before that are not its own.
  std::string id;
  while (seen.empty()) {
    id = create(*daemon);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (seen.empty()) call(*daemon, "DELETE", "/v1/instances/" + id);
  }
  call(*daemon, "DELETE", "/v1/instances/" + id);
  listener.join();
  CHECK(seen.size() == 2);
}
