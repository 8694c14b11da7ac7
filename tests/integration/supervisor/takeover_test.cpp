// SPDX-License-Identifier: Apache-2.0
// vtpmd dies or hands over, and tenants do not notice.
#include "tests/integration/supervisor/json_call.h"
#include "tests/support/idle_process.h"
#include "tests/support/skip.h"

#include <vtpm/control/attach.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/evidence/verifier.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>
#include <vtpm/os/process.h>
#include <vtpm/tpm/digest.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;
using control::NodeKind;

namespace {

// Small where sanitizers make everything large and slow.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kInstances = 24;
#else
constexpr std::size_t kInstances = 200;
#endif
constexpr std::size_t kTenants = 4;  // threads
const std::string kNonce = "00112233445566778899aabbccddeeff";

bool is_root_with_fuse() {
  return ::geteuid() == 0 && UniqueFd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
}

// One command on an open node. Nothing: the file gave an error.
std::optional<Bytes> transact(int fd, BytesView command) {
  if (::write(fd, command.data(), command.size()) != static_cast<ssize_t>(command.size()))
    return std::nullopt;
  Bytes response(4096);
  const ssize_t n = ::read(fd, response.data(), response.size());
  if (n < 10) return std::nullopt;
  response.resize(static_cast<std::size_t>(n));
  return response;
}

bool succeeds(const std::optional<Bytes>& response) {
  return response && get_be<std::uint32_t>(*response, 6) == 0;
}

// TPM2_PCR_Extend of PCR 16, a tenant's, by a digest of 32 times 1; and what that makes of a value.
const Bytes kExtend = *from_hex(
    "80020000004100000182"
    "00000010"
    "00000009400000090000000000"
    "00000001000b" +
    std::string(64, '1'));
const Bytes kReadPcr16 = *from_hex("8001000000140000017e00000001000b03000001");
const Bytes kGetRandom = *from_hex("80010000000c0000017b0010");
tpm::Sha256 extended(const tpm::Sha256& value) {
  tpm::Sha256 digest;
  digest.fill(0x11);
  return tpm::extend(value, digest);
}

Result<std::string> send(const Place& place, const control::AttachMessage& message,
                         const std::vector<int>& fds) {
  return control::request(place.runtime(), message, fds, after(std::chrono::seconds(20)));
}

// A node at a path of the host, taken away at the end.
class Node {
 public:
  Node(const Place& place, const std::string& instance, const std::string& path,
       NodeKind kind = NodeKind::Raw)
      : path_(path) {
    auto node = device::make_fuse_node();
    REQUIRE(node);
    const auto served = send(place, control::AttachRequest{instance, kind, path}, {node->server.get()});
    INFO((served ? "" : served.error().context));
    REQUIRE(served);
    REQUIRE(device::place(node->mount, path));
  }
  ~Node() { (void)device::remove_node(path_); }
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  UniqueFd open() const { return UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC)); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// What one tenant has done with its TPM.
struct Tenant {
  std::string instance;
  json::Value shown;
  std::unique_ptr<Node> node;
  UniqueFd file;  // open all the time, of every second tenant
  tpm::Sha256 pcr16{};
};

// Runs tenants' commands from several threads, round by round.
class Load {
 public:
  explicit Load(std::vector<Tenant>& tenants) : tenants_(tenants) {
    for (std::size_t i = 0; i < kTenants; ++i)
      threads_.emplace_back([this, i] { run(i); });
  }
  ~Load() { stop(); }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void stop() {
    done_ = true;
    for (auto& thread : threads_)
      if (thread.joinable()) thread.join();
  }
  // Waits until every thread has begun and ended a round from now on.
  void a_round() const {
    for (const auto& rounds : rounds_) {
      const auto before = rounds.load();
      REQUIRE(eventually([&] { return rounds.load() >= before + 2 || failed_ > 0; }));
    }
  }
  std::size_t commands() const { return commands_; }
  std::size_t failed() const { return failed_; }
  // errno of the last open that failed; 0: none did.
  int open_error() const { return open_error_; }

 private:
  void run(std::size_t first) {
    while (!done_) {
      for (std::size_t i = first; i < tenants_.size(); i += kTenants) {
        Tenant& tenant = tenants_[i];
        UniqueFd opened;
        if (!tenant.file) opened = tenant.node->open();
        if (!tenant.file && !opened) open_error_ = errno;
        const int fd = tenant.file ? tenant.file.get() : opened.get();
        note(succeeds(transact(fd, kGetRandom)));
        const bool counted = succeeds(transact(fd, kExtend));
        if (counted) tenant.pcr16 = extended(tenant.pcr16);
        note(counted);
      }
      ++rounds_[first];
    }
  }
  void note(bool worked) {
    ++commands_;
    if (!worked) ++failed_;
  }

  std::vector<Tenant>& tenants_;
  std::array<std::atomic<std::size_t>, kTenants> rounds_{};
  std::atomic<std::size_t> commands_{0};
  std::atomic<std::size_t> failed_{0};
  std::atomic<int> open_error_{0};
  std::atomic<bool> done_{false};
  std::vector<std::thread> threads_;
};

std::unique_ptr<Daemon> start(const Place& place) {
  auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  return daemon;
}

json::Value show(const Daemon& daemon, const std::string& id) {
  return call(daemon, "GET", "/v1/instances/" + id);
}

std::size_t count(const Daemon& daemon) {
  return call(daemon, "GET", "/v1/instances")["instances"].size();
}

// The zygote's children and the keeper are nobody's zombies for long, but may be for a moment.
bool runs(pid_t pid) {
  const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!stat) return false;
  const std::string_view text = as_text(*stat);
  const auto end = text.rfind(')');
  return end != std::string_view::npos && text.substr(end + 2, 1) != "Z";
}

// The engines and zygotes of the place's program that run now.
std::size_t engine_processes(const Place& place) {
  std::size_t found = 0;
  const std::filesystem::path program = place.programs() + "/vtpm-engine";
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code error;
    if (std::filesystem::read_symlink(entry.path() / "exe", error) == program) ++found;
  }
  return found;
}

void check_evidence(const Daemon& daemon, const std::string& id) {
  const std::string body = R"({"nonce":")" + kNonce + R"(","fresh":true})";
  const auto document = daemon.client().call("POST", "/v1/instances/" + id + "/evidence", body);
  INFO((document ? "" : document.error().context));
  REQUIRE(document);
  const auto parsed = evidence::parse_evidence(*document);
  REQUIRE(parsed);
  auto policy = evidence::policy_from_evidence(*parsed);
  REQUIRE(policy);
  policy->require_fresh = true;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  const auto verdict = evidence::verify(*document, *policy, {*from_hex(kNonce), ms});
  for (const auto& check : verdict.checks)
    if (!check.passed) FAIL_CHECK(check.name << ": " << check.detail);
  CHECK(verdict.verified());
}

void measure(const Daemon& daemon, const std::string& id, char digit) {
  const std::string digest(64, digit);
  call(daemon, "POST", "/v1/instances/" + id + "/measurements",
       R"({"pcr":18,"digest":")" + digest + R"(","description":"a statement"})");
}

}  // namespace

TEST_CASE("takeover: vtpmd is killed, hands over, is killed again, and no tenant's command fails") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  auto daemon = start(place);
  std::vector<Tenant> tenants(kInstances);
  for (std::size_t i = 0; i < tenants.size(); ++i) {
    Tenant& tenant = tenants[i];
    tenant.instance = create(*daemon);
    // What is opened again and again is a managed node: the process that becomes vtpmd has duplicates of the
    // test's files until it executes it, and a raw node would be busy so long.
    const bool kept = i / kTenants % 2 == 0;
    tenant.node =
        std::make_unique<Node>(place, tenant.instance, place.directory / ("tpm" + std::to_string(i)),
                               kept ? NodeKind::Raw : NodeKind::Managed);
    if (kept) tenant.file = tenant.node->open();
    tenant.shown = show(*daemon, tenant.instance);
  }
  measure(*daemon, tenants[0].instance, '7');
  Load load(tenants);
  for (const int signal : {SIGKILL, SIGUSR2, SIGKILL}) {
    INFO("signal " << signal);
    load.a_round();
    CHECK(daemon->stop(signal) == (signal == SIGKILL ? SIGKILL : 0));
    load.a_round();  // without a vtpmd
    daemon = start(place);
    load.a_round();
    REQUIRE(count(*daemon) == kInstances);
    for (const Tenant& tenant : tenants) {
      const auto now = show(*daemon, tenant.instance);
      for (const char* same : {"state", "ek_name", "ak_name", "pid", "launch", "log_index", "owner_uid"})
        CHECK(now[same] == tenant.shown[same]);
      CHECK(now["nodes"] == tenant.shown["nodes"]);
    }
  }
  load.stop();
  WARN(load.commands() << " commands of " << kInstances << " tenants, " << load.failed() << " failed");
  INFO("errno of an open: " << load.open_error());
  CHECK(load.failed() == 0);
  for (Tenant& tenant : tenants) {
    const UniqueFd opened = tenant.file ? UniqueFd() : tenant.node->open();
    const auto response = transact(tenant.file ? tenant.file.get() : opened.get(), kReadPcr16);
    REQUIRE(succeeds(response));
    CHECK(Bytes(response->end() - 32, response->end()) == Bytes(tenant.pcr16.begin(), tenant.pcr16.end()));
  }
  measure(*daemon, tenants[0].instance, '8');
  CHECK(call(*daemon, "GET", "/v1/instances/" + tenants[0].instance + "/eventlog").size() == 3);
  check_evidence(*daemon, tenants[0].instance);
  check_evidence(*daemon, tenants[1].instance);
  check_evidence(*daemon, create(*daemon));
  for (std::size_t i = 0; i < 3; ++i)
    call(*daemon, "DELETE", "/v1/instances/" + tenants[i].instance);
  CHECK_FALSE(runs(tenants[0].shown["pid"].get<pid_t>()));
  CHECK(count(*daemon) == kInstances - 2);
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(eventually([&] { return engine_processes(place) == 0; }));
}

TEST_CASE("takeover: the end of a container is noticed by the next vtpmd, whenever it was") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  auto daemon = start(place);
  IdleProcess during, afterwards;
  std::vector<std::string> ids;
  for (const IdleProcess* container : {&during, &afterwards}) {
    auto node = device::make_fuse_node();
    REQUIRE(node);
    UniqueFd config(::memfd_create("config.json", MFD_CLOEXEC));
    REQUIRE(write_all(config.get(), as_bytes("{}")));
    control::LaunchRequest request;
    request.container = "c" + std::to_string(ids.size());
    request.nodes = {NodeKind::Managed};
    const auto id = send(place, request, {container->pidfd(), config.get(), node->server.get()});
    REQUIRE(id);
    ids.push_back(*id);
  }
  daemon->stop(SIGKILL);
  during.end();
  daemon = start(place);
  CHECK(eventually([&] { return count(*daemon) == 1; }));
  CHECK(show(*daemon, ids[1])["container"] == "c1");
  afterwards.end();
  CHECK(eventually([&] { return count(*daemon) == 0; }));
}

TEST_CASE(
    "takeover: an engine that dies while there is no vtpmd gives its tenant an error, and only it fails") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  auto daemon = start(place);
  const std::string dead = create(*daemon), neighbour = create(*daemon);
  const Node node(place, dead, place.directory / "dead"), other(place, neighbour, place.directory / "other");
  const UniqueFd file = node.open();
  REQUIRE(succeeds(transact(file.get(), kGetRandom)));
  const pid_t engine = show(*daemon, dead)["pid"].get<pid_t>();
  daemon->stop(SIGKILL);
  REQUIRE(::kill(engine, SIGKILL) == 0);
  CHECK(eventually([&] { return !transact(file.get(), kGetRandom); }));
  CHECK_FALSE(node.open());
  CHECK(succeeds(transact(other.open().get(), kGetRandom)));
  daemon = start(place);
  CHECK(eventually([&] { return show(*daemon, dead)["state"] == "failed"; }));
  CHECK(show(*daemon, neighbour)["state"] == "running");
  check_evidence(*daemon, neighbour);
  call(*daemon, "DELETE", "/v1/instances/" + dead);
  CHECK(count(*daemon) == 1);
}

TEST_CASE("takeover: a keeper that is killed is replaced, and the next one has everything") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  auto daemon = start(place);
  const std::string id = create(*daemon);
  pid_t keeper = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code error;
    const auto line = read_file(entry.path() / "cmdline", 4096);
    if (std::filesystem::read_symlink(entry.path() / "exe", error) == place.programs() + "/vtpm-engine" &&
        line && as_text(*line).find("keeper") != std::string_view::npos)
      keeper = static_cast<pid_t>(std::stol(entry.path().filename()));
  }
  REQUIRE(keeper > 0);
  REQUIRE(::kill(keeper, SIGKILL) == 0);
  REQUIRE(eventually([&] { return place.log().find("the keeper is gone") != std::string::npos; }));
  const std::string later = create(*daemon);
  daemon->stop(SIGKILL);
  daemon = start(place);
  CHECK(count(*daemon) == 2);
  CHECK(show(*daemon, id)["state"] == "running");
  check_evidence(*daemon, later);
}

TEST_CASE(
    "takeover: vtpmd killed at any moment leaves each instance whole or gone, and no engine without one") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  auto daemon = start(place);
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<int> pause_ms(1, 60);
  std::vector<std::string> known;  // created and answered, and not asked to be destroyed
  for (int round = 0; round < 20; ++round) {
    INFO("round " << round << "\n" << place.log());
    std::atomic<bool> done{false};
    std::vector<std::string> made;
    std::set<std::string> given_up;
    std::thread creates([&, client = daemon->client()] {
      while (!done) {
        const auto answer = client.call("POST", "/v1/instances", "{}");
        if (!answer) break;
        made.push_back(json::parse(*answer, 1 << 20)->at("id").get<std::string>());
      }
    });
    std::thread destroys([&, client = daemon->client(), victims = known] {
      for (std::size_t i = 0; i < victims.size() && !done; i += 2) {
        given_up.insert(victims[i]);
        if (!client.call("DELETE", "/v1/instances/" + victims[i])) break;
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms(random)));
    daemon->stop(SIGKILL);
    done = true;
    creates.join();
    destroys.join();
    known.insert(known.end(), made.begin(), made.end());
    std::erase_if(known, [&](const std::string& id) { return given_up.contains(id); });
    daemon = start(place);
    std::set<std::string> there;
    const auto list = call(*daemon, "GET", "/v1/instances")["instances"];
    for (const auto& instance : list) {
      INFO(instance.dump());
      CHECK(instance["state"] == "running");
      CHECK(runs(instance["pid"].get<pid_t>()));
      there.insert(instance["id"].get<std::string>());
    }
    for (const std::string& id : known)
      CHECK(there.contains(id));
    // And the zygote, the keeper, the embedded anchor's engine.
    CHECK(eventually([&] { return engine_processes(place) == list.size() + 3; }));
    known.assign(there.begin(), there.end());
    if (!known.empty()) measure(*daemon, known.front(), '1');
  }
  CHECK(daemon->stop(SIGTERM) == 0);
  CHECK(eventually([&] { return engine_processes(place) == 0; }));
}
