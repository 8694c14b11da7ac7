// SPDX-License-Identifier: Apache-2.0
// One vtpmd with the embedded anchor: what a client sees of an instance's life.
#include "tests/integration/supervisor/json_call.h"

#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/text.h>

#include <signal.h>

#include <atomic>
#include <latch>
#include <mutex>
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

// Collects what /v1/events tells; kills the daemon at its end, which ends the stream.
class Listener {
 public:
  explicit Listener(Daemon& daemon)
      : daemon_(daemon), thread_([this, client = daemon.client()] {
          const auto keep = [this](std::string_view event) {
            auto value = json::parse(event, 4096);
            const std::lock_guard lock(mutex_);
            if (value) seen_.push_back(std::move(*value));
            return value.has_value();
          };
          static_cast<void>(client.stream("/v1/events", keep).has_value());  // it breaks off
        }) {}
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener() {
    daemon_.stop(SIGKILL);
    thread_.join();
  }

  std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return seen_.size();
  }
  std::vector<json::Value> of(const std::string& id) const {
    const std::lock_guard lock(mutex_);
    std::vector<json::Value> found;
    for (const auto& event : seen_)
      if (event["id"] == id) found.push_back(event);
    return found;
  }

 private:
  Daemon& daemon_;
  mutable std::mutex mutex_;
  std::vector<json::Value> seen_;
  std::thread thread_;
};

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
  const auto quotes = [&] { return call(*daemon, "GET", "/v1/anchor")["quotes"].get<std::size_t>(); };
  attest(*daemon, id, kNonce, false);  // an epoch that covers the instance's entry
  const std::size_t before = quotes();
  for (int i = 0; i < 2; ++i)
    attest(*daemon, id, kNonce, false);
  CHECK(quotes() == before);

  std::vector<std::string> documents(24);
  std::latch all_ready(static_cast<std::ptrdiff_t>(documents.size()));
  std::vector<std::thread> verifiers;
  for (std::size_t i = 0; i < documents.size(); ++i)
    verifiers.emplace_back([&, i] {
      const std::string nonce = to_hex(Bytes(16, static_cast<std::uint8_t>(i)));
      all_ready.arrive_and_wait();
      const auto answer = daemon->client().call("POST", "/v1/instances/" + id + "/evidence",
                                                R"({"nonce":")" + nonce + R"(","fresh":true})");
      if (answer) documents[i] = *answer;
    });
  for (auto& verifier : verifiers)
    verifier.join();
  CHECK(quotes() > before);
  CHECK(quotes() <= before + documents.size() / 2);
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
  Listener listener(*daemon);
  // Its subscription begins a moment after it: instances come and go until one is told of.
  REQUIRE(eventually([&] {
    call(*daemon, "DELETE", "/v1/instances/" + create(*daemon));
    return listener.count() > 0;
  }));
  const std::string id = create(*daemon, R"({"name":"told"})");
  const std::string path = "/v1/instances/" + id;
  call(*daemon, "POST", path + "/measurements",
       R"({"pcr":18,"digest":")" + std::string(64, 'b') + R"(","description":"a statement"})");
  REQUIRE(::kill(call(*daemon, "GET", path)["pid"].get<pid_t>(), SIGKILL) == 0);
  REQUIRE(eventually([&] { return listener.of(id).size() == 3; }));  // the failure is told when it is logged
  call(*daemon, "DELETE", path);
  CHECK(eventually([&] { return listener.of(id).size() == 4; }));
  std::vector<std::string> kinds;
  for (const auto& event : listener.of(id)) {
    kinds.push_back(event["event"]);
    CHECK(event["name"] == "told");
    CHECK(event["time"].is_number_unsigned());
  }
  CHECK(kinds == std::vector<std::string>{"instance.create", "instance.measure", "instance.failed",
                                          "instance.destroy"});
}

TEST_CASE("vtpmd: an event log is full with 1024 records") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::string id = create(*daemon);
  const std::string path = "/v1/instances/" + id;
  const std::string body = R"({"pcr":18,"digest":")" + std::string(64, 'b') + R"(","description":"d"})";
  for (std::size_t records = 1; records < log::kMaxEvents; ++records)
    REQUIRE(daemon->client().call("POST", path + "/measurements", body));
  const auto full = call(*daemon, "GET", path + "/eventlog");
  CHECK(full.size() == log::kMaxEvents);
  CHECK(status_of(*daemon, "POST", path + "/measurements", body) == 507);
  CHECK(call(*daemon, "GET", path + "/eventlog") == full);
  check_verified(verify(attest(*daemon, id, kNonce, false), kNonce, false));
}

TEST_CASE("vtpmd: what could not be attested later is not made") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto with_container = [](const std::string& id) { return R"({"container":")" + id + "\"}"; };
  const std::string id = create(*daemon, with_container(std::string(kMaxId, 'c')));
  check_verified(verify(attest(*daemon, id, kNonce, false), kNonce, false));
  const auto refused =
      GENERATE_COPY(as<std::string>(), with_container(std::string(kMaxId + 1, 'c')), with_container(""),
                    with_container(R"(a\u001b[2J)"), with_container(R"(a\u007f)"), R"({"image":"sha256:12"})",
                    R"({"image":"latest"})");
  INFO(refused);
  CHECK(status_of(*daemon, "POST", "/v1/instances", refused) == 400);
}

TEST_CASE("vtpmd: no living engine is taken for a dead one while clients come and go") {
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  std::atomic<bool> done{false};
  std::atomic<std::size_t> made{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, client = daemon->client()] {
      for (int n = 0; n < 60; ++n)
        made += client.call("POST", "/v1/instances", "{}") ? 1 : 0;
    });
    threads.emplace_back([&, client = daemon->client()] {
      while (!done)
        static_cast<void>(client.call("GET", "/healthz").has_value());
    });
  }
  for (std::size_t i = 0; i < threads.size(); i += 2)
    threads[i].join();
  done = true;
  for (std::size_t i = 1; i < threads.size(); i += 2)
    threads[i].join();
  CHECK(made == 240);
  const auto list = call(*daemon, "GET", "/v1/instances")["instances"];
  CHECK(list.size() == made);
  for (const auto& instance : list)
    CHECK(instance["state"] == "running");
}
