// SPDX-License-Identifier: Apache-2.0
// Launches that come with the cgroup.procs of a container's cgroup: what is taken for one, and what is not.
#include "tests/integration/supervisor/json_call.h"
#include "tests/integration/supervisor/launch.h"
#include "tests/support/engine.h"
#include "tests/support/skip.h"

#include <vtpm/device/cgroup.h>
#include <vtpm/device/fuse_node.h>
#include <vtpm/device/socket_node.h>
#include <vtpm/os/file.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <future>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr uid_t kOther = 64902;  // nobody's
constexpr int kSlow = 2'500;     // us of CPU time each second: an RSA key takes a minute

// A cgroup of the test's own in the hierarchy of the CPU time.
class Cgroup {
 public:
  Cgroup() {
    const auto text = read_file("/proc/self/mountinfo", device::kMaxMountInfo);
    REQUIRE(text);
    const auto mounts = device::cgroup_mounts(as_text(*text));
    REQUIRE(mounts);
    for (const bool unified : {false, true})
      for (const auto& mount : *mounts)
        if (path_.empty() && mount.unified == unified && (unified || mount.cpu))
          path_ = mount.point + "/vtpm-test-" + std::to_string(::getpid()) + "-" + std::to_string(++made_);
    if (!path_.empty() && ::mkdir(path_.c_str(), 0755) != 0) path_.clear();
  }
  // What was in it has been ended, and goes in a moment.
  ~Cgroup() {
    CHECK(eventually([this] { return remove(); }));
  }
  Cgroup(const Cgroup&) = delete;
  Cgroup& operator=(const Cgroup&) = delete;
  bool is_there() const { return !path_.empty(); }
  std::string file(const std::string& name = "cgroup.procs") const { return path_ + "/" + name; }
  UniqueFd open(const std::string& name, int flags) const {
    return UniqueFd(::open(file(name).c_str(), flags | O_CLOEXEC));
  }
  std::string processes() const { return std::string(as_text(*read_file(file(), 65536))); }
  // Of each second that many microseconds. False: it has no such controller.
  bool allow(int microseconds) const {
    const std::string quota = std::to_string(microseconds);
    return write("cpu.max", quota + " 1000000") ||
           (write("cpu.cfs_period_us", "1000000") && write("cpu.cfs_quota_us", quota));
  }
  bool remove() const { return path_.empty() || ::rmdir(path_.c_str()) == 0 || errno == ENOENT; }

 private:
  bool write(const std::string& name, const std::string& text) const {
    const UniqueFd file = open(name, O_WRONLY);
    return file && write_all(file.get(), as_bytes(text));
  }

  static inline int made_ = 0;
  std::string path_;
};

struct Launched {
  Container container;
  Result<std::string> id = Error(ErrorCode::Internal, "not asked");
};

void launch_into(Launched& launched, const Place& place, int cgroup, bool durable = false) {
  auto node = device::make_fuse_node();
  REQUIRE(node);
  auto request = launch_of("c1");
  request.cgroup = true;
  request.durable = durable;
  const UniqueFd config = config_file();
  launched.id = send(place, request, {launched.container.pidfd(), config.get(), node->server.get(), cgroup});
}

bool has_no_instance(const Daemon& daemon) {
  return call(daemon, "GET", "/v1/instances")["instances"].empty();
}

}  // namespace

TEST_CASE("attach.sock: an engine runs in the cgroup whose cgroup.procs comes with the launch") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there()) VTPM_SKIP("no cgroup can be made here");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const std::size_t before = daemon->descriptors();
  Launched launched;
  launch_into(launched, place, cgroup.open("cgroup.procs", O_WRONLY).get());
  INFO((launched.id ? "" : launched.id.error().context));
  REQUIRE(launched.id);
  const auto shown = call(*daemon, "GET", "/v1/instances/" + *launched.id);
  CHECK(shown["cgroup"] == "container");
  CHECK(cgroup.processes() == std::to_string(shown["pid"].get<pid_t>()) + "\n");
  launched.container.end();
  CHECK(eventually([&] { return cgroup.remove(); }));
  CHECK(eventually([&] { return has_no_instance(*daemon); }));
  CHECK(eventually([&] { return daemon->descriptors() <= before; }));
}

TEST_CASE("attach.sock: launches into a cgroup that may use hardly any CPU time hold up nobody else's") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there() || !cgroup.allow(1000)) VTPM_SKIP("no cgroup's CPU time can be limited here");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const UniqueFd procs = cgroup.open("cgroup.procs", O_WRONLY);
  std::vector<Container> containers(12);
  std::vector<std::future<void>> launches;
  for (const Container& container : containers) {
    auto request = launch_of("slow" + std::to_string(launches.size()));
    request.cgroup = true;
    auto launch = [&, request, fuse = open_device("/dev/fuse"), config = config_file()] {
      (void)send(place, request, {container.pidfd(), config.get(), fuse.get(), procs.get()});
    };
    launches.push_back(std::async(std::launch::async, std::move(launch)));
  }
  const auto placed = [&] { return std::ranges::count(cgroup.processes(), '\n'); };
  CHECK(eventually([&] { return placed() >= 2; }));
  auto other = std::async(std::launch::async, [&] { return daemon->client().call("POST", "/v1/instances"); });
  CHECK(other.wait_for(std::chrono::seconds(15)) == std::future_status::ready);
  CHECK(cgroup.allow(1000000));
  CHECK(other.get());
}

TEST_CASE(
    "attach.sock: a durable TPM that is killed with all of its container's cgroup is stopped, not failed") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there()) VTPM_SKIP("no cgroup can be made here");
  const bool is_removed = GENERATE(true, false), engine_first = GENERATE(true, false);
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  Launched launched;
  launch_into(launched, place, cgroup.open("cgroup.procs", O_WRONLY).get(), true);
  REQUIRE(launched.id);
  const auto look = [&] { return call(*daemon, "GET", "/v1/instances/" + *launched.id); };
  const auto engine = look()["pid"].get<pid_t>();
  // vtpmd sees the ends in this order, whenever it looks.
  REQUIRE(::kill(daemon->pid(), SIGSTOP) == 0);
  if (!engine_first) launched.container.end();
  REQUIRE(::kill(engine, SIGKILL) == 0);
  REQUIRE(eventually([&] { return cgroup.processes().empty(); }));
  launched.container.end();
  if (is_removed) REQUIRE(eventually([&] { return cgroup.remove(); }));
  REQUIRE(::kill(daemon->pid(), SIGCONT) == 0);
  CHECK(eventually([&] { return look()["state"] == "stopped"; }));
  INFO(place.log());
  CHECK(place.log().find("has failed") == std::string::npos);
  CHECK(place.log().find("continues after a TPM Reset") == std::string::npos);
  if (!is_removed) CHECK(cgroup.processes().empty());
}

namespace {

// A socket node of an instance.
class Socket {
 public:
  Socket(const Place& place, const std::string& instance, const std::string& name)
      : path_(place.directory / name) {
    auto listener = device::make_socket_node(path_);
    REQUIRE(listener);
    const control::AttachRequest request{instance, NodeKind::Managed, path_, control::Backend::Socket};
    REQUIRE(send(place, request, {listener->get()}));
  }
  // What a connection of its own is answered; nothing: the connection fails, or ends. Waits as long as
  // `goes_on` says.
  Bytes answer(BytesView command, const std::function<bool()>& goes_on) const {
    const UniqueFd connection(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    const auto* name = reinterpret_cast<const sockaddr*>(&address);
    if (::connect(connection.get(), name, sizeof address) != 0) return {};
    if (::send(connection.get(), command.data(), command.size(), MSG_NOSIGNAL) < 0) return {};
    pollfd p{connection.get(), POLLIN, 0};
    while (::poll(&p, 1, 50) == 0)
      if (!goes_on()) return {};
    Bytes response(4096);
    const ssize_t n = ::read(connection.get(), response.data(), response.size());
    response.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return response;
  }

 private:
  std::string path_;
};

// A tenant that makes one RSA key after another, whatever happens to its connection.
class Busy {
 public:
  explicit Busy(const Socket& node)
      : thread_([this, &node] {
          for (u32 i = 0; !done_; ++i)
            if (node.answer(create_rsa_primary(kOwner, 2048, i), [this] { return !done_; }).empty())
              ::poll(nullptr, 0, 5);
        }) {}
  ~Busy() {
    done_ = true;
    thread_.join();
  }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

}  // namespace

TEST_CASE("attach.sock: a reset serves all nodes again, however slow the engine is and busy one's tenants") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there() || !cgroup.allow(1000000)) VTPM_SKIP("no cgroup's CPU time can be limited here");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  Launched launched;
  launch_into(launched, place, cgroup.open("cgroup.procs", O_WRONLY).get(), true);
  REQUIRE(launched.id);
  std::vector<std::unique_ptr<Socket>> nodes;
  for (int i = 0; i < 14; ++i)
    nodes.push_back(std::make_unique<Socket>(place, *launched.id, "node" + std::to_string(i)));
  const auto look = [&] { return call(*daemon, "GET", "/v1/instances/" + *launched.id); };
  const auto engine = look()["pid"].get<pid_t>();
  {
    const Busy busy(*nodes.front());
    REQUIRE(cgroup.allow(kSlow));
    REQUIRE(::kill(engine, SIGKILL) == 0);
    const auto is_reset = [&] { return look()["pid"] != engine && look()["state"] == "running"; };
    bool reset = false;
    for (int i = 0; i < 12 && !reset; ++i)
      reset = eventually(is_reset);
    CHECK(reset);
  }
  REQUIRE(cgroup.allow(1000000));
  INFO(place.log());
  CHECK(place.log().find(place.directory / "node13 is gone") == std::string::npos);
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  const auto waits = [&] { return std::chrono::steady_clock::now() < patience; };
  for (std::size_t i = 1; i < nodes.size(); ++i)
    CHECK(code_of(nodes[i]->answer(get_random(4), waits)) == 0);
}

TEST_CASE("attach.sock: what is not a cgroup.procs that is open for writing is refused") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there()) VTPM_SKIP("no cgroup can be made here");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  const auto is_refused = [&](int fd, const std::string& why) {
    Launched launched;
    launch_into(launched, place, fd);
    INFO((launched.id ? "taken" : launched.id.error().context));
    CHECK((!launched.id && launched.id.error().kind() == ErrorCode::Malformed));
    CHECK((!launched.id && launched.id.error().context.find(why) != std::string::npos));
    CHECK(has_no_instance(*daemon));
  };
  is_refused(cgroup.open("cgroup.procs", O_RDONLY).get(), "not open for writing");
  is_refused(cgroup.open("cgroup.procs", O_PATH).get(), "not open for writing");
  UniqueFd threads = cgroup.open("tasks", O_WRONLY);  // version 1
  if (!threads) threads = cgroup.open("cgroup.threads", O_WRONLY);
  is_refused(threads.get(), "another file of a cgroup");
  is_refused(cgroup.open(".", O_RDONLY).get(), "not a regular file");
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  is_refused(writer.get(), "not a regular file");
  const std::string path = place.directory / "cgroup.procs";
  const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  is_refused(file.get(), "no cgroup hierarchy");
  const UniqueFd removed = cgroup.open("cgroup.procs", O_WRONLY);
  REQUIRE(cgroup.remove());
  // By its name, or by the kernel, which remembers the name of a version 1 cgroup for a while.
  Launched launched;
  launch_into(launched, place, removed.get());
  REQUIRE_FALSE(launched.id);
  CHECK(launched.id.error().context.find("cgroup is gone") != std::string::npos);
  CHECK(has_no_instance(*daemon));
}

TEST_CASE("attach.sock: a file on a FUSE mount that never answers is refused at once") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  Container other;
  auto node = device::make_fuse_node();
  REQUIRE(node);
  const UniqueFd config = config_file();
  REQUIRE(send(place, launch_of("c0"), {other.pidfd(), config.get(), node->server.get()}));
  node->server.reset();
  // An open file of a TPM whose engine then stands still: nobody answers what is asked of it.
  const std::string path = "/proc/self/fd/" + std::to_string(node->mount.get());
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(file);
  const auto engine = call(*daemon, "GET", "/v1/instances")["instances"][0]["pid"].get<pid_t>();
  REQUIRE(::kill(engine, SIGSTOP) == 0);
  Launched launched;
  launch_into(launched, place, file.get());
  REQUIRE_FALSE(launched.id);
  CHECK(launched.id.error().context.find("no cgroup hierarchy") != std::string::npos);
  ::kill(engine, SIGKILL);
}

TEST_CASE("attach.sock: a cgroup that its opener may not move engines into is a launch that leaves nothing") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Cgroup cgroup;
  if (!cgroup.is_there()) VTPM_SKIP("no cgroup can be made here");
  REQUIRE(::chown(cgroup.file().c_str(), kOther, kOther) == 0);
  const Place place;
  const auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  REQUIRE(::seteuid(kOther) == 0);
  const UniqueFd theirs = cgroup.open("cgroup.procs", O_WRONLY);
  REQUIRE(::seteuid(0) == 0);
  REQUIRE(theirs);
  SECTION("root passes it: the kernel asks for the rights of who opened it") {
    Launched launched;
    launch_into(launched, place, theirs.get());
    REQUIRE_FALSE(launched.id);
    CHECK(launched.id.error().context.find("cannot be moved into the container's cgroup") !=
          std::string::npos);
  }
  SECTION("another user passes it") {
    Launched launched;
    REQUIRE(::setresuid(kOther, kOther, 0) == 0);
    Container own;  // a process of that user
    auto request = launch_of("c1");
    request.cgroup = true;
    const UniqueFd config = config_file();
    const UniqueFd fuse = open_device("/dev/fuse");
    launched.id = send(place, request, {own.pidfd(), config.get(), fuse.get(), theirs.get()});
    REQUIRE(::setresuid(0, 0, 0) == 0);
    REQUIRE_FALSE(launched.id);
    CHECK(launched.id.error().kind() == ErrorCode::PermissionDenied);
    CHECK(launched.id.error().context.find("only root and vtpmd's own user") != std::string::npos);
  }
  CHECK(has_no_instance(*daemon));
  CHECK(cgroup.processes().empty());
}
