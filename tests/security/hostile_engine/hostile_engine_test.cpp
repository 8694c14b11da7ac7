// SPDX-License-Identifier: Apache-2.0
// A compromised engine inside its real jail, under a real vtpmd: whatever it tries fails, and only its own
// instance suffers.
#include "daemon/ipc/engine_link.h"
#include "tests/integration/supervisor/json_call.h"
#include "tests/security/hostile_engine/orders.h"

#include <vtpm/os/bytes.h>
#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

using Numbers = std::array<std::uint32_t, 4>;

std::string measurement(const std::string& digest) {
  return R"({"pcr":18,"digest":")" + digest + R"(","description":"an order"})";
}

std::string order(Obey what, const Numbers& numbers = {}) {
  Bytes digest;
  put(digest, as_bytes(kObey));
  digest.push_back(static_cast<std::uint8_t>(what));
  for (const std::uint32_t number : numbers)
    put_be(digest, number);
  digest.resize(32);
  return measurement(to_hex(digest));
}

std::uint32_t pid_argument(pid_t pid) {
  return static_cast<std::uint32_t>(pid);
}

// A vtpmd whose engines are hostile.
std::unique_ptr<Daemon> start(const Place& place, const std::string& name = "hostile-engine") {
  const std::string program = place.programs() + "/" + name;
  if (!std::filesystem::exists(program)) {
    std::filesystem::copy_file(std::string(VTPM_BIN_DIR) + "/vtpm-engine-hostile", program);
    std::filesystem::permissions(program, std::filesystem::perms(0755));
  }
  auto daemon = Daemon::start(place, "embedded", {"--engine", program});
  REQUIRE(daemon->ready());
  return daemon;
}

struct Fixture {
  Place place;
  std::unique_ptr<Daemon> daemon = start(place);
  std::string neighbour = create(*daemon);

  pid_t pid_of(const std::string& id) const {
    return call(*daemon, "GET", "/v1/instances/" + id)["pid"].get<pid_t>();
  }
  // From the list, for which no engine is asked: GET of an instance would find out one that lies.
  std::string state_of(const std::string& id) const {
    const json::Value answer = call(*daemon, "GET", "/v1/instances");
    for (const auto& instance : answer["instances"])
      if (instance["id"] == id) return instance["state"].get<std::string>();
    return "";
  }
  // What vtpmd answers to the measurement that is the order.
  unsigned give(const std::string& id, const std::string& body) const {
    return status_of(*daemon, "POST", "/v1/instances/" + id + "/measurements", body);
  }
  void check_neighbour() const {
    CHECK(give(neighbour, measurement(std::string(64, 'a'))) == 200);
    CHECK(state_of(neighbour) == "running");
  }
  // A new instance obeys, which ends it and nothing else.
  void check_fatal(const std::string& body) const {
    const std::string id = create(*daemon);
    CHECK(give(id, body) >= 400);
    CHECK(eventually([&] { return state_of(id) == "failed"; }));
    check_neighbour();
    call(*daemon, "DELETE", "/v1/instances/" + id);
  }
  // The open file that is vtpmd's standard error and all engines': its flags, O_APPEND among them.
  std::string log_flags() const {
    const auto info = read_file("/proc/" + std::to_string(daemon->pid()) + "/fdinfo/2", 4096);
    REQUIRE(info);
    const std::string text(as_text(*info));
    return text.substr(text.find("flags:"), text.find("mnt_id:") - text.find("flags:"));
  }
  std::size_t memory_kb() const {
    const auto status = read_file("/proc/" + std::to_string(daemon->pid()) + "/status", 65536);
    REQUIRE(status);
    const std::string text(as_text(*status));
    return std::stoul(text.substr(text.find("VmRSS:") + 6));
  }
};

struct Try {
  const char* name;
  Numbers numbers;  // a system call and its first arguments
};

}  // namespace

TEST_CASE_METHOD(Fixture, "hostile engine: no system call gets it out of the jail") {
  const std::uint32_t sibling = pid_argument(pid_of(neighbour));
  const std::uint32_t vtpmd = pid_argument(daemon->pid());
  const std::vector<Try> tries = {
      {"opens a file: /proc of a sibling, another's slot file", {SYS_openat, 0, 0, O_RDONLY}},
      {"opens a socket", {SYS_socket, AF_UNIX, SOCK_STREAM, 0}},
      {"connects its socket", {SYS_connect, 3, 0, 0}},
      {"traces a sibling", {SYS_ptrace, 16, sibling, 0}},
      {"reads a sibling's memory", {SYS_process_vm_readv, sibling, 0, 0}},
      {"kills a sibling", {SYS_kill, sibling, SIGKILL, 0}},
      {"kills vtpmd", {SYS_kill, vtpmd, SIGKILL, 0}},
      {"kills all it can", {SYS_kill, 0xffffffff, SIGKILL, 0}},
      {"asks for a sibling's pidfd", {SYS_pidfd_open, sibling, 0, 0}},
      {"forks", {SYS_clone, SIGCHLD, 0, 0}},
      {"forks as its zygote does", {SYS_clone, CLONE_NEWPID | CLONE_PIDFD | SIGCHLD, 0, 0}},
      {"executes a program", {SYS_execve, 0, 0, 0}},
      {"joins a namespace", {SYS_setns, 3, 0, 0}},
      {"makes a namespace", {SYS_unshare, CLONE_NEWUSER, 0, 0}},
      {"asks for io_uring", {SYS_io_uring_setup, 8, 0, 0}},
      {"asks for keys", {SYS_keyctl, 0, 0, 0}},
      {"loads a BPF program", {SYS_bpf, 0, 0, 0}},
      {"handles page faults", {SYS_userfaultfd, 0, 0, 0}},
      {"hoards descriptors", {SYS_dup, 3, 0, 0}},
      {"takes its capability back", {SYS_capset, 0, 0, 0}},
      {"raises its limits", {SYS_prlimit64, 0, 7, 0}},
  };
  for (const Try& one : tries) {
    INFO(one.name);
    check_fatal(order(Obey::Call, one.numbers));
  }
  check_fatal(order(Obey::Executable));
  CHECK(place.log().find("SIGSYS") != std::string::npos);
}

TEST_CASE_METHOD(Fixture, "hostile engine: it does nothing to the log that it shares but to add to it") {
  const std::string flags = log_flags();
  const std::string written = place.log();
  const std::vector<Try> tries = {
      {"makes it block nobody and append no more", {SYS_fcntl, 2, F_SETFL, O_NONBLOCK}},
      {"asks for its flags", {SYS_fcntl, 2, F_GETFL, 0}},
      {"goes to its begin", {SYS_lseek, 2, 0, SEEK_SET}},
      {"goes to its end", {SYS_lseek, 2, 0, SEEK_END}},
      {"writes into it", {SYS_pwrite64, 2, 0, 0}},
      {"reads what others wrote", {SYS_pread64, 2, 0, 0}},
      {"reads on from its position", {SYS_read, 2, 0, 0}},
      {"cuts it", {SYS_ftruncate, 2, 0, 0}},
      {"maps it", {SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE}},
      {"locks it", {SYS_flock, 2, LOCK_EX, 0}},
      {"has vtpmd wait for the disk", {SYS_fdatasync, 2, 0, 0}},
      {"sends it a frame", {SYS_sendmsg, 2, 0, 0}},
  };
  for (const Try& one : tries) {
    INFO(one.name);
    check_fatal(order(Obey::Call, one.numbers));
  }
  CHECK(log_flags() == flags);
  CHECK(place.log().starts_with(written));
}

TEST_CASE_METHOD(Fixture, "hostile engine: what it says is not believed, and ends it") {
  const auto descriptors = daemon->descriptors();
  for (const Obey lie : {Obey::WrongId, Obey::WrongVerb, Obey::NotReply, Obey::Oversize, Obey::NotFrame,
                         Obey::Descriptors, Obey::TooMany, Obey::Endless}) {
    INFO("order " << static_cast<int>(lie));
    check_fatal(order(lie));
  }
  CHECK(eventually([&] { return daemon->descriptors() <= descriptors; }));
}

TEST_CASE_METHOD(Fixture, "hostile engine: a vtpmd that comes back believes no lies, and has the neighbour") {
  struct Lie {
    Obey what;
    const char* state;  // of the instance afterwards
  };
  // What a reply to the dead vtpmd might have been is dropped, and the answer is taken. (The two with many
  // descriptors are alone: the kernel lets a user have only so many on their way.)
  const auto lies =
      GENERATE(std::vector<Lie>{{Obey::WrongId, "running"},
                                {Obey::WrongVerb, "failed"},
                                {Obey::NotReply, "failed"},
                                {Obey::Oversize, "failed"},
                                {Obey::NotFrame, "failed"},
                                {Obey::Descriptors, "failed"}},
               std::vector<Lie>{{Obey::TooMany, "failed"}}, std::vector<Lie>{{Obey::Flood, "failed"}});
  std::vector<std::string> liars;
  (void)create(*daemon,
               R"({"durable":true,"name":"honest"})");  // the next test's lies are why it fails there
  for (const Lie& lie : lies) {
    liars.push_back(create(*daemon));
    CHECK(give(liars.back(), order(Obey::Later, {static_cast<std::uint32_t>(ipc::Verb::Status),
                                                 static_cast<std::uint32_t>(lie.what)})) == 200);
  }
  daemon->stop(SIGKILL);
  daemon = start(place);
  for (std::size_t i = 0; i < lies.size(); ++i) {
    INFO("order " << static_cast<int>(lies[i].what));
    CHECK(eventually([&] { return state_of(liars[i]) == lies[i].state; }));
    // Nor is it believed when it is asked what it uses.
    CHECK(call(*daemon, "GET", "/v1/instances/" + liars[i])["use"].is_null());
    CHECK(eventually([&] { return state_of(liars[i]) == "failed"; }));
  }
  check_neighbour();
}

TEST_CASE("hostile engine: one that lies when it is given a durable state is not started, others are") {
  for (const Obey lie :
       {Obey::WrongId, Obey::WrongVerb, Obey::NotReply, Obey::Oversize, Obey::NotFrame, Obey::Descriptors}) {
    INFO("order " << static_cast<int>(lie));
    const Place place;
    const auto daemon = start(place, "later-" + std::to_string(static_cast<int>(ipc::Verb::PowerOnDurable)) +
                                         "-" + std::to_string(static_cast<int>(lie)));
    const auto refused = status_of(*daemon, "POST", "/v1/instances", R"({"durable":true,"name":"keep"})");
    CHECK(refused >= 400);
    const std::string other = create(*daemon);
    CHECK(call(*daemon, "GET", "/v1/instances/" + other)["state"] == "running");
  }
}

TEST_CASE("hostile engine: the descriptors that it sends and nobody takes keep no other from being started") {
  const auto zygote = ipc::Zygote::start(std::string(VTPM_BIN_DIR) + "/vtpm-engine-hostile", STDERR_FILENO);
  REQUIRE(zygote);
  auto engine = (*zygote)->spawn();
  REQUIRE(engine);
  REQUIRE(engine->link->power_on());
  Bytes arm;
  put(arm, as_bytes(kObey));
  arm.push_back(static_cast<std::uint8_t>(Obey::Later));
  put_be(arm, static_cast<std::uint32_t>(ipc::Verb::Status));
  put_be(arm, static_cast<std::uint32_t>(Obey::TooMany));
  arm.resize(64);
  REQUIRE(engine->link->transmit(tpm::Locality::tenant(), arm));
  const auto socket = engine->link->duplicate();
  REQUIRE(socket);
  REQUIRE(ipc::send_transfer(socket->get(), {ipc::Verb::Status, false, false, 1, 0}, {}));
  pollfd sent{socket->get(), POLLIN, 0};
  REQUIRE(::poll(&sent, 1, 30000) == 1);  // 250 descriptors are on their way
  const auto other = (*zygote)->spawn();
  REQUIRE(other);
  CHECK(other->link->power_on());
}

TEST_CASE_METHOD(Fixture,
                 "hostile engine: one that never answers is given up, its neighbours are served meanwhile") {
  const std::string id = create(*daemon);
  std::thread waiting([&] { CHECK(give(id, order(Obey::Silence)) >= 400); });
  for (int i = 0; i < 20; ++i)
    check_neighbour();
  waiting.join();
  CHECK(eventually([&] { return state_of(id) == "failed"; }));
}

TEST_CASE_METHOD(Fixture,
                 "hostile engine: a flood of its socket costs vtpmd neither memory nor descriptors") {
  const std::size_t memory = memory_kb();
  const auto descriptors = daemon->descriptors();
  const std::string id = create(*daemon);
  (void)give(id, order(Obey::Flood));
  (void)give(id, measurement(std::string(64, 'b')));  // one that has flooded is found out now, at the latest
  CHECK(eventually([&] { return state_of(id) == "failed"; }));
  check_neighbour();
  call(*daemon, "DELETE", "/v1/instances/" + id);
  CHECK(memory_kb() < memory + 32 * 1024);
  CHECK(eventually([&] { return daemon->descriptors() <= descriptors; }));
}

TEST_CASE_METHOD(Fixture, "hostile engine: all the memory and log that it can have is bounded") {
  const std::string hungry = create(*daemon);
  (void)give(hungry, order(Obey::Memory));
  check_neighbour();
  const std::string noisy = create(*daemon);
  (void)give(noisy, order(Obey::Log));
  check_neighbour();
  CHECK(std::filesystem::file_size(place.directory / "log") <= (std::size_t{64} << 20) + 65536);
  check_fatal(order(Obey::Call, {SYS_socket, AF_UNIX, SOCK_STREAM, 0}));
}
