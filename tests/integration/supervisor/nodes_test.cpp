// SPDX-License-Identifier: Apache-2.0
// A durable instance's nodes outlive vtpmd and its engine, whichever dies first; and nobody waits at one that
// no engine will serve.
#include "tests/integration/supervisor/durable_tenant.h"
#include "tests/support/kernel.h"
#include "tests/support/skip.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <random>
#include <set>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

#define REQUIRE_NODES()                                            \
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse"); \
  if (!kernel_resends()) VTPM_SKIP("this kernel cannot resend FUSE requests (6.9 can)")

std::uint64_t number_in(BytesView bytes) {
  return bytes.size() == 8 ? get_be<std::uint64_t>(bytes) : 0;
}

// A tenant that writes one number after another into its NV index, by one open file.
class Storing {
 public:
  explicit Storing(Tenant& tenant) : tenant_(tenant), thread_([this] { run(); }) {}
  ~Storing() { stop(); }
  Storing(const Storing&) = delete;
  Storing& operator=(const Storing&) = delete;
  void stop() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Waits until more has been stored.
  bool goes_on() const {
    const std::uint64_t before = stored_;
    return eventually([&] { return stored_ > before; });
  }
  std::uint64_t stored() const { return stored_; }  // the greatest that was acknowledged
  std::uint64_t tried() const { return tried_; }
  std::set<int> errors() {
    const std::lock_guard lock(mutex_);
    return errors_;
  }

 private:
  void run() {
    for (std::uint64_t value = 1; !done_; ++value) {
      tried_ = value;
      Bytes content, response(4096);
      put_be(content, value);
      const Bytes command = nv_write(kIndex, content);
      errno = 0;
      const bool written = ::write(tenant_.file(), command.data(), command.size()) > 0;
      const ssize_t n = written ? ::read(tenant_.file(), response.data(), response.size()) : -1;
      if (n >= 10 && code_of(BytesView(response).first(static_cast<std::size_t>(n))) == 0) {
        stored_ = value;
        continue;
      }
      const std::lock_guard lock(mutex_);
      errors_.insert(n < 0 ? errno : 0);
    }
  }

  Tenant& tenant_;
  std::atomic<bool> done_{false};
  std::atomic<std::uint64_t> stored_{0}, tried_{0};
  std::mutex mutex_;
  std::set<int> errors_;
  std::thread thread_;
};

// vtpmd, a durable instance and its engine, which die and come back.
struct Scene {
  Place place;
  std::unique_ptr<Daemon> daemon;
  std::string id;
  pid_t engine = 0;
  std::size_t deaths = 0;

  Scene() {
    start();
    id = create(*daemon, kKeep);
    look();
  }
  void start() {
    daemon = Daemon::start(place);
    INFO(place.log());
    REQUIRE(daemon->ready());
  }
  void look() { engine = show(*daemon, id)["pid"].get<pid_t>(); }
  void kill_engine() {
    REQUIRE(::kill(engine, SIGKILL) == 0);
    ++deaths;
  }
  // Until another engine runs.
  void wait_for_another() {
    const pid_t before = engine;
    REQUIRE(eventually([&] {
      const auto now = show(*daemon, id);
      return now["state"] == "running" && now["pid"] != before;
    }));
    look();
  }
  void do_step(char step) {
    switch (step) {
      case 'v':
        daemon->stop(SIGKILL);
        break;
      case 'h':
        CHECK(daemon->stop(SIGUSR2) == 0);
        break;
      case 's':
        start();
        break;
      case 'e':
        kill_engine();
        break;
      case 'r':
        REQUIRE(eventually([&] { return show(*daemon, id)["state"] != "running"; }));
        break;
      default:
        wait_for_another();
    }
  }
  std::string node_state() const { return show(*daemon, id)["nodes"][0]["state"]; }
};

// Whether a command on the file works: 0, or an errno. Nothing: it hangs (and is ended).
std::optional<int> outcome(int file) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Bytes command = get_random(4);
    u8 response[64];
    errno = 0;
    const bool worked =
        ::write(file, command.data(), command.size()) > 0 && ::read(file, response, sizeof response) >= 10;
    ::_exit(worked ? 0 : errno);
  }
  const auto pidfd = open_pidfd(pid);
  REQUIRE(pidfd);
  pollfd ended{pidfd->get(), POLLIN, 0};
  if (::poll(&ended, 1, 10'000) != 1) {
    ::kill(pid, SIGKILL);
    return std::nullopt;
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return WEXITSTATUS(status);
}

bool is_cut_off(std::optional<int> error) {
  return error == ENOTCONN || error == ECONNABORTED;
}

}  // namespace

TEST_CASE("nodes: vtpmd and the engine die in every order, and the tenant goes on by the same open file") {
  REQUIRE_NODES();
  // v: SIGKILL of vtpmd, h: it hands over, s: the next one starts, e: SIGKILL of the engine, w: another
  // serves.
  const std::string order = GENERATE("vsew", "vesw", "evsw", "hsewew", "hesw", "ehsw", "ewerhsw", "ewervsw",
                                     "ewvsew", "vsvesw", "vsewvesw");
  Scene scene;
  INFO("order " << order << "\n" << scene.place.log());
  Tenant tenant(scene.place, scene.id, "node", NodeKind::Managed);
  tenant.define();
  Storing storing(tenant);
  REQUIRE(storing.goes_on());
  for (const char step : order) {
    scene.do_step(step);
    if (step == 'w' || step == 's') CHECK(storing.goes_on());
  }
  storing.stop();
  const std::uint64_t found = number_in(tenant.stored());
  CHECK(found >= storing.stored());
  CHECK(found <= storing.tried());
  CHECK(storing.errors() == std::set<int>{EIO});
  CHECK(scene.node_state() == "served");
  CHECK(entries_of<log::InstanceReset>(*scene.daemon, scene.id).size() >= scene.deaths);
  CHECK(outcome(tenant.file()) == 0);
}

TEST_CASE("nodes: vtpmd killed at any moment of a reset leaves it to the next one") {
  REQUIRE_NODES();
  Scene scene;
  Tenant tenant(scene.place, scene.id, "node", NodeKind::Managed);
  tenant.define();
  Storing storing(tenant);
  std::mt19937 random(std::random_device{}());
  std::uniform_int_distribution<int> pause_us(0, 60'000);
  for (int round = 0; round < 12; ++round) {
    const int pause = pause_us(random);
    INFO("round " << round << ", " << pause << " us\n" << scene.place.log());
    REQUIRE(storing.goes_on());
    scene.look();
    scene.kill_engine();
    std::this_thread::sleep_for(std::chrono::microseconds(pause));
    scene.do_step('v');
    scene.do_step('s');
    scene.do_step('w');
    CHECK(storing.goes_on());
    CHECK(scene.node_state() == "served");
  }
  storing.stop();
  CHECK(number_in(tenant.stored()) >= storing.stored());
  CHECK(storing.errors() == std::set<int>{EIO});
}

TEST_CASE("nodes: the users of an instance that is given up after a takeover are told so, none waits") {
  REQUIRE_NODES();
  Scene scene;
  Tenant tenant(scene.place, scene.id);
  scene.do_step('v');
  scene.do_step('s');
  for (int death = 0; death < 6; ++death) {
    REQUIRE(becomes(*scene.daemon, scene.id, "running"));
    scene.look();
    scene.kill_engine();
    REQUIRE(eventually([&] { return show(*scene.daemon, scene.id)["pid"] != scene.engine; }));
  }
  INFO(scene.place.log());
  REQUIRE(becomes(*scene.daemon, scene.id, "failed"));
  CHECK(is_cut_off(outcome(tenant.file())));
}

TEST_CASE("nodes: the users of an instance that ends after a takeover are told so, none waits") {
  REQUIRE_NODES();
  Scene scene;
  Tenant tenant(scene.place, scene.id);
  scene.do_step('v');
  scene.do_step('s');
  CHECK(outcome(tenant.file()) == 0);
  call(*scene.daemon, "DELETE", "/v1/instances/" + scene.id);
  CHECK(is_cut_off(outcome(tenant.file())));
}

TEST_CASE("nodes: a container's end lets go of its node, whoever still has it open") {
  REQUIRE_NODES();
  Scene scene;
  Container container;
  const UniqueFd config = config_file();
  auto node = device::make_fuse_node();
  REQUIRE(node);
  auto request = launch_of("c1");
  request.durable = true;
  const auto launched = send(scene.place, request, {container.pidfd(), config.get(), node->server.get()});
  REQUIRE(launched);
  node->server.reset();
  const std::string path = scene.place.directory / "node";
  REQUIRE(device::place(node->mount, path));
  const UniqueFd file = open_device(path.c_str());
  scene.do_step('v');
  scene.do_step('s');
  CHECK(outcome(file.get()) == 0);
  container.end();
  REQUIRE(becomes(*scene.daemon, *launched, "stopped"));
  CHECK(is_cut_off(outcome(file.get())));
  CHECK(device::remove_node(path));
}

TEST_CASE("nodes: one that was detached, or whose mount is gone, is nobody's any more") {
  REQUIRE_NODES();
  Scene scene;
  Tenant kept(scene.place, scene.id, "kept", NodeKind::Managed);
  Tenant detached(scene.place, scene.id, "detached", NodeKind::Managed);
  { const Tenant unmounted(scene.place, scene.id, "unmounted", NodeKind::Managed); }
  const Tenant later(scene.place, scene.id, "later", NodeKind::Managed);  // others are looked at now
  REQUIRE(send(scene.place, control::DetachRequest{scene.id, detached.path()}, {}));
  CHECK(show(*scene.daemon, scene.id)["nodes"].size() == 2);
  for (const char* order : {"w", "vsew"}) {
    if (*order == 'w') scene.kill_engine();
    for (const char* step = order; *step != 0; ++step)
      scene.do_step(*step);
    CHECK(is_cut_off(outcome(detached.file())));
    CHECK(outcome(kept.file()) == EIO);
    CHECK(outcome(kept.file()) == 0);
    CHECK(show(*scene.daemon, scene.id)["nodes"].size() == 2);
  }
  CHECK(outcome(later.file()) == EIO);
  CHECK(outcome(later.file()) == 0);
}

TEST_CASE("nodes: many of them, and their numbers are not mixed up") {
  REQUIRE_NODES();
  Scene scene;
  std::vector<std::unique_ptr<Tenant>> tenants;
  const auto attach = [&](int i, NodeKind kind) {
    tenants.push_back(std::make_unique<Tenant>(scene.place, scene.id, "node" + std::to_string(i), kind));
  };
  for (int i = 0; i < 15; ++i)
    attach(i, NodeKind::Managed);
  for (const int i : {3, 7}) {
    REQUIRE(send(scene.place, control::DetachRequest{scene.id, tenants[static_cast<std::size_t>(i)]->path()},
                 {}));
    tenants[static_cast<std::size_t>(i)].reset();
  }
  attach(15, NodeKind::Raw);
  const auto before = show(*scene.daemon, scene.id)["nodes"];
  for (const char step : std::string("vsew"))
    scene.do_step(step);
  CHECK(show(*scene.daemon, scene.id)["nodes"] == before);
  for (const auto& tenant : tenants)
    if (tenant) {
      CHECK(outcome(tenant->file()) == EIO);
      CHECK(outcome(tenant->file()) == 0);
    }
  // The raw node has one opener still.
  CHECK_FALSE(open_device(tenants.back()->path().c_str()));
  CHECK(errno == EBUSY);
}

TEST_CASE("nodes: hand-over and takeover anchor what was stored, so that it cannot be put back") {
  REQUIRE_NODES();
  Scene scene;
  Tenant tenant(scene.place, scene.id);
  tenant.define();
  tenant.store(1);
  const auto anchored = [&] { return entries_of<log::InstanceState>(*scene.daemon, scene.id); };
  const std::uint64_t at_start = show(*scene.daemon, scene.id)["storage"]["sequence"];
  CHECK(anchored().empty());  // the usual interval is 30 s
  scene.do_step('h');
  scene.do_step('s');
  REQUIRE(anchored().size() == 1);
  CHECK(anchored()[0].sequence > at_start);
  const auto log = entries(*scene.daemon);
  const auto is_state = [](const log::Entry& e) { return std::holds_alternative<log::InstanceState>(e); };
  const auto is_stop = [](const log::Entry& e) { return std::holds_alternative<log::HostStop>(e); };
  CHECK(std::find_if(log.begin(), log.end(), is_state) < std::find_if(log.begin(), log.end(), is_stop));
  tenant.store(2);
  scene.do_step('v');
  tenant.store(3);
  scene.do_step('s');
  CHECK(eventually([&] { return anchored().back().sequence >= anchored()[0].sequence + 2; }));
}
