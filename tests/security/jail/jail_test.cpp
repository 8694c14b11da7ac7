// SPDX-License-Identifier: Apache-2.0
// The jail holds: each forbidden call kills, and what the table says is what the kernel enforces.
#include "daemon/engine/jail.h"

#include "daemon/engine/seccomp_rows.h"
#include "tests/support/catch_result.h"
#include "tests/support/engine.h"

#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <iterator>
#include <set>

using namespace vtpm;
using namespace vtpm::engine;

namespace {

constexpr int kHarmless = 0;
constexpr int kJailFailed = 99;

// Wait status of a child that enters the jail (the engine's as an engine does, atop the zygote's), and then
// makes one call.
int jailed(Role role, const std::function<void()>& call) {
  const auto zygote = SyscallFilter::compile(Role::Zygote);
  const auto engine = SyscallFilter::compile(Role::Engine);
  const auto keeper = SyscallFilter::compile(Role::Keeper);
  REQUIRE(keeper);
  REQUIRE(zygote);
  REQUIRE(engine);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (role == Role::Keeper) {
      if (!enter_keeper_jail(*keeper)) ::_exit(kJailFailed);
    } else {
      const auto parts = enter_zygote_jail(*zygote);
      if (!parts) ::_exit(kJailFailed);
      if (role == Role::Engine && !enter_engine_jail(*engine, null.get(), *parts)) ::_exit(kJailFailed);
    }
    call();
    ::_exit(kHarmless);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return status;
}

bool killed(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

struct Forbidden {
  const char* name;
  std::function<void()> call;
};

long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
  return ::syscall(number, a, b, c, d);
}

const std::vector<Forbidden>& forbidden_to_both() {
  static const std::vector<Forbidden> calls = {
      {"open", [] { (void)::open("/etc/passwd", O_RDONLY); }},
      {"openat2", [] { raw(SYS_openat2, AT_FDCWD); }},
      {"socket", [] { (void)::socket(AF_INET, SOCK_STREAM, 0); }},
      {"connect", [] { raw(SYS_connect, 3); }},
      {"ptrace", [] { (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }},
      {"execve", [] { (void)::execl("/bin/true", "true", nullptr); }},
      {"kill", [] { (void)::kill(::getppid(), 0); }},
      {"kill of itself", [] { raw(SYS_kill, ::getpid(), SIGTERM); }},
      {"tgkill", [] { raw(SYS_tgkill, 1, 1, SIGABRT); }},
      {"process_vm_readv", [] { raw(SYS_process_vm_readv, 1); }},
      {"pidfd_getfd", [] { raw(SYS_pidfd_getfd, 3, 3); }},
      {"mount", [] { raw(SYS_mount); }},
      {"unshare", [] { raw(SYS_unshare, CLONE_NEWUSER); }},
      {"setns", [] { raw(SYS_setns, 3); }},
      {"clone3", [] { raw(SYS_clone3); }},
      {"vfork", [] { raw(SYS_vfork); }},
      {"a thread", [] { raw(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND); }},
      {"memory made executable", [] { raw(SYS_mprotect, 0, 4096, PROT_EXEC); }},
      {"ioctl", [] { raw(SYS_ioctl, 2, 0); }},
      {"io_uring_setup", [] { raw(SYS_io_uring_setup, 1); }},
      {"bpf", [] { raw(SYS_bpf); }},
      {"setuid", [] { raw(SYS_setuid, 0); }},
      {"unlink", [] { raw(SYS_unlink, 0); }},
      {"PR_SET_DUMPABLE", [] { raw(SYS_prctl, PR_SET_DUMPABLE, 1); }},
  };
  return calls;
}

// What a row permits, but for one argument.
struct Probe {
  const char* name;
  unsigned roles;
  long number;
  std::array<long, 4> arguments;
};

// The kernel takes the low 32 bits of it for a descriptor.
constexpr long kBehind32Bits = 1L << 32;

const std::vector<Probe>& probes() {
  static const std::vector<Probe> all = {
      {"a frame that is not from vtpmd", kBoth, SYS_recvmsg, {2, 0, 0}},
      {"a frame to somebody else", kBoth, SYS_sendmsg, {2, 0, 0}},
      {"read of the log", kBoth, SYS_read, {2, 0, 0}},
      {"read of the log behind 32 bits", kBoth, SYS_read, {kBehind32Bits + 2, 0, 0}},
      {"read of the control socket", kBoth, SYS_read, {3, 0, 0}},
      {"write to the control socket", kBoth, SYS_write, {3, 0, 0}},
      {"write to the control socket behind 32 bits", kBoth, SYS_write, {kBehind32Bits + 3, 0, 0}},
      {"write to the log behind 32 bits", kBoth, SYS_write, {kBehind32Bits + 2, 0, 0}},
      {"write to /dev/null", kBoth, SYS_write, {1, 0, 0}},
      {"flags of the log", kBoth, SYS_fcntl, {2, F_SETFL, O_NONBLOCK}},
      {"flags of the log behind 32 bits", kBoth, SYS_fcntl, {kBehind32Bits + 2, F_SETFL, O_NONBLOCK}},
      {"flags of /dev/null", kBoth, SYS_fcntl, {0, F_SETFL, O_NONBLOCK}},
      {"a connection of the control socket", kBoth, SYS_accept4, {3, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC}},
      {"a connection that blocks", kBoth, SYS_accept4, {4, 0, 0, SOCK_CLOEXEC}},
      {"a connection's address", kBoth, SYS_accept4, {4, 4096, 4096, SOCK_NONBLOCK | SOCK_CLOEXEC}},
      {"signals from a device", kBoth, SYS_fcntl, {4, F_SETOWN, O_NONBLOCK}},
      {"another flag than O_NONBLOCK", kBoth, SYS_fcntl, {4, F_SETFL, O_ASYNC}},
      {"the position of another file than the log", kBoth, SYS_lseek, {0, 0, SEEK_CUR}},
      {"another position of the log", kBoth, SYS_lseek, {2, 1, SEEK_CUR}},
      {"the log's begin", kBoth, SYS_lseek, {2, 0, SEEK_SET}},
      {"pread of the log", kBoth, SYS_pread64, {2, 0, 0, 0}},
      {"pwrite to the log", kBoth, SYS_pwrite64, {2, 0, 0, 0}},
      {"pwrite to the log behind 32 bits", kBoth, SYS_pwrite64, {kBehind32Bits + 2, 0, 0, 0}},
      {"sync of the log", kBoth, SYS_fdatasync, {2}},
      {"executable memory", kBoth, SYS_mmap, {0, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
      {"a file as memory", kBoth, SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED}},
      {"mlock of more than a key", kBoth, SYS_mlock, {0, 4096}},
      {"munlock of more than a key", kBoth, SYS_munlock, {0, 4096}},
      {"another timer", kBoth, SYS_setitimer, {ITIMER_VIRTUAL, 0, 0}},
      {"a new user namespace", kZygote, SYS_clone, {CLONE_NEWUSER | SIGCHLD}},
      {"limits of another process", kZygote, SYS_prlimit64, {1, 7, 0, 0}},
      {"memory that is locked another way", kZygote, SYS_mlockall, {MCL_CURRENT}},
      {"seccomp's strict mode", kZygote, SYS_seccomp, {SECCOMP_SET_MODE_STRICT, 1, 0}},
      {"another option of a socket", kKeeper, SYS_getsockopt, {3, SOL_SOCKET, SO_SNDBUF, 0}},
      {"one direction of a socket", kKeeper, SYS_shutdown, {3, SHUT_RD}},
      {"the keeper's executable memory",
       kKeeper,
       SYS_mmap,
       {0, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS}},
      {"the keeper's file as memory", kKeeper, SYS_mmap, {0, 4096, PROT_READ, MAP_SHARED}},
  };
  return all;
}

bool killed_by(const Probe& probe, Role role) {
  const auto& a = probe.arguments;
  return killed(jailed(role, [&] { raw(probe.number, a[0], a[1], a[2], a[3]); }));
}

// The condition that filters are made without for the moment.
struct LeftOut {
  long number = -1;
  unsigned argument = 0;
} left_out;

}  // namespace

// In the place of libseccomp's function in this program.
extern "C" int seccomp_rule_add_array(scmp_filter_ctx filter, std::uint32_t action, int number,
                                      unsigned count, const scmp_arg_cmp* tests) {
  using Add = decltype(&seccomp_rule_add_array);
  static const auto add = reinterpret_cast<Add>(::dlsym(RTLD_NEXT, "seccomp_rule_add_array"));
  std::vector<scmp_arg_cmp> kept;
  std::copy_if(tests, tests + count, std::back_inserter(kept), [number](const scmp_arg_cmp& test) {
    return number != left_out.number || test.arg != left_out.argument;
  });
  return add(filter, action, number, static_cast<unsigned>(kept.size()), kept.data());
}

TEST_CASE("seccomp rows: each has a reason and a role, and no call is listed twice") {
  std::set<long> numbers;
  const auto check = [&](const SyscallRow& row) {
    CHECK_FALSE(row.reason.empty());
    CHECK((row.roles & kZygote) != 0);  // an engine's filter lies atop the zygote's
    CHECK(numbers.insert(row.number).second);
  };
  for (const auto& row : kSyscalls)
    check(row);
  for (const auto& row : kRefusedSyscalls)
    check(row);
  numbers.clear();
  for (const auto& row : kKeeperSyscalls) {
    CHECK_FALSE(row.reason.empty());
    CHECK(row.roles == kKeeper);
    CHECK(numbers.insert(row.number).second);
  }
}

TEST_CASE("jail: what is permitted works") {
  CHECK(jailed(Role::Engine, [] {
          if (::write(STDERR_FILENO, "", 0) != 0 || ::getpid() <= 1) ::_exit(1);
          const std::vector<char> large(1 << 20, 'x');
          if (large.back() != 'x') ::_exit(2);
        }) == 0);
}

TEST_CASE("jail: forbidden calls kill an engine and the zygote") {
  for (const auto role : {Role::Engine, Role::Zygote}) {
    for (const auto& forbidden : forbidden_to_both()) {
      INFO(forbidden.name << (role == Role::Engine ? " in an engine" : " in the zygote"));
      CHECK(killed(jailed(role, forbidden.call)));
    }
  }
}

TEST_CASE("jail: forbidden calls kill the keeper, and so do read, fork and the making of sockets") {
  for (const auto& forbidden : forbidden_to_both()) {
    INFO(forbidden.name);
    CHECK(killed(jailed(Role::Keeper, forbidden.call)));
  }
  for (const Probe& probe : probes()) {
    if (std::ranges::find(kKeeperSyscalls, probe.number, &SyscallRow::number) != kKeeperSyscalls.end())
      continue;
    INFO(probe.name);
    CHECK(killed_by(probe, Role::Keeper));
  }
  CHECK(killed(jailed(Role::Keeper, [] { (void)::fork(); })));
  CHECK(killed(jailed(Role::Keeper, [] { raw(SYS_pidfd_open, 1); })));
  CHECK(killed(jailed(Role::Keeper, [] { raw(SYS_pidfd_send_signal, 3, SIGKILL); })));
  CHECK(killed(jailed(Role::Keeper, [] { raw(SYS_prlimit64, 0, 7, 0, 0); })));
}

TEST_CASE("jail: a permitted call with another argument kills") {
  for (const auto role : {Role::Engine, Role::Zygote, Role::Keeper})
    for (const Probe& probe : probes()) {
      if ((probe.roles & static_cast<unsigned>(role)) == 0) continue;
      INFO(probe.name << ", role " << static_cast<unsigned>(role));
      CHECK(killed_by(probe, role));
    }
}

// So a condition that is dropped or widened fails the test above.
TEST_CASE("seccomp rows: of each condition a probe tells whether it is there") {
  std::vector<SyscallRow> rows(kSyscalls.begin(), kSyscalls.end());
  rows.insert(rows.end(), kKeeperSyscalls.begin(), kKeeperSyscalls.end());
  for (const SyscallRow& row : rows) {
    for (const ArgumentTest& condition : row.tests()) {
      if (condition.index < 0) continue;
      const auto role = (row.roles & kKeeper) != 0 ? Role::Keeper : Role::Zygote;
      left_out = {row.number, static_cast<unsigned>(condition.index)};
      INFO("system call " << row.number << " (" << row.reason << "), argument " << condition.index);
      CHECK(std::ranges::any_of(probes(), [&](const Probe& probe) {
        return probe.number == row.number && (probe.roles & static_cast<unsigned>(role)) != 0 &&
               !killed_by(probe, role);
      }));
      left_out = {};
    }
  }
}

TEST_CASE("jail: an engine cannot fork, wait, limit or rename itself") {
  CHECK(killed(jailed(Role::Engine, [] { (void)::fork(); })));
  CHECK(killed(jailed(Role::Engine, [] { raw(SYS_wait4, -1, 0, WNOHANG); })));
  CHECK(killed(jailed(Role::Engine, [] { raw(SYS_pidfd_open, 1); })));
  CHECK(killed(jailed(Role::Engine, [] { raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER); })));
  CHECK(killed(jailed(Role::Engine, [] { raw(SYS_prlimit64, 0, 7, 0, 0); })));
}

TEST_CASE("jail: an engine accepts connections that it reads without waiting, and makes no socket") {
  constexpr long kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  constexpr long kReceived = 100;  // nothing is there
  for (const auto role : {Role::Engine, Role::Zygote}) {
    CHECK(jailed(role, [] {
            if (raw(SYS_accept4, kReceived, 0, 0, kFlags) != -1 || errno != EBADF) ::_exit(1);
          }) == 0);
    CHECK(killed(jailed(role, [] { raw(SYS_accept4, 0, 0, 0, kFlags); })));
    CHECK(killed(jailed(role, [] { raw(SYS_accept4, kReceived, 0, 0, SOCK_CLOEXEC); })));
    CHECK(killed(jailed(role, [] { raw(SYS_accept4, kReceived, 0, 0, kFlags | 1); })));
    CHECK(killed(jailed(role, [] { raw(SYS_accept4, kReceived, 4096, 4096, kFlags); })));
    CHECK(killed(jailed(role, [] { raw(SYS_accept, 0, 0, 0); })));
    CHECK(killed(jailed(role, [] { raw(SYS_bind, 0, 0, 0); })));
    CHECK(killed(jailed(role, [] { raw(SYS_listen, 0, 1); })));
    CHECK(killed(jailed(role, [] { raw(SYS_getpeername, 0, 0, 0); })));
    CHECK(killed(jailed(role, [] { raw(SYS_getsockopt, 0, SOL_SOCKET, SO_PEERCRED); })));
  }
}

TEST_CASE("jail: an engine has no descriptors but the log, /dev/null and its socket") {
  const UniqueFd leaked(::fcntl(STDOUT_FILENO, F_DUPFD, 40));  // without close-on-exec, on purpose
  CHECK(jailed(Role::Engine, [&] {
          for (int fd = kControlFd + 1; fd < 1024; ++fd)
            if (::close(fd) == 0 || errno != EBADF) ::_exit(1);
        }) == 0);
}

TEST_CASE("jail: a real engine has no new privileges, two filters and tight limits") {
  const auto zygote = test::start_zygote();
  const auto engine = zygote->spawn();
  REQUIRE(engine);
  REQUIRE(engine->link->power_on());
  const std::string proc = "/proc/" + std::to_string(engine->pid);
  const auto status = read_file(proc + "/status", 65536);
  REQUIRE(status);
  const std::string text(as_text(*status));
  CHECK(text.find("NoNewPrivs:\t1") != std::string::npos);
  CHECK(text.find("Seccomp:\t2") != std::string::npos);
  CHECK(text.find("Seccomp_filters:\t2") != std::string::npos);
  CHECK(text.find("Threads:\t1") != std::string::npos);
  CHECK(text.find("Name:\tvtpm-engine") != std::string::npos);
  const auto limits = read_file(proc + "/limits", 65536);
  REQUIRE(limits);
  const std::string rows(as_text(*limits));
  CHECK(rows.find("Max core file size        0 ") != std::string::npos);
  CHECK(rows.find("Max processes             0 ") != std::string::npos);
  CHECK(rows.find("Max open files            192 ") != std::string::npos);
}

namespace {

std::string link_of(const std::string& path) {
  std::array<char, 128> text{};
  const ssize_t n = ::readlink(path.c_str(), text.data(), text.size());
  return n > 0 ? std::string(text.data(), static_cast<std::size_t>(n)) : "";
}

struct RealEngine {
  std::unique_ptr<ipc::Zygote> zygote = test::start_zygote();
  ipc::SpawnedEngine engine = std::move(*zygote->spawn());
  std::string proc = "/proc/" + std::to_string(engine.pid);

  RealEngine() { REQUIRE(engine.link->power_on()); }
  bool has(std::uint32_t part) const { return (zygote->jail() & part) != 0; }
  std::string status() const {
    const auto text = read_file(proc + "/status", 65536);
    REQUIRE(text);
    return std::string(as_text(*text));
  }
};

}  // namespace

TEST_CASE("jail: a real engine has no capability") {
  const RealEngine real;
  const std::string text = real.status();
  for (const char* set : {"CapInh:", "CapPrm:", "CapEff:", "CapAmb:"})
    CHECK(text.find(std::string(set) + "\t0000000000000000") != std::string::npos);
}

TEST_CASE("jail: a real engine is alone in its pid namespace, and vtpmd has its outer pid") {
  const RealEngine real;
  const auto second = real.zygote->spawn();
  REQUIRE(second);
  REQUIRE(second->link->power_on());
  const auto pid = pid_of_pidfd(real.engine.pidfd.get());
  REQUIRE(pid);
  CHECK(*pid == real.engine.pid);
  if (!real.has(ipc::kJailPidNamespaces))
    SUCCEED("this machine permits no pid namespaces");
  else {
    const std::string text = real.status();
    CHECK(text.find("NSpid:\t" + std::to_string(*pid) + "\t1\n") != std::string::npos);
  }
  if (::getuid() != 0 || !real.has(ipc::kJailPidNamespaces)) return;  // links in /proc/PID/ns: root alone
  CHECK(link_of(real.proc + "/ns/pid") != link_of("/proc/" + std::to_string(second->pid) + "/ns/pid"));
}

TEST_CASE("jail: a real engine has namespaces of its own, and a root without files") {
  if (::getuid() != 0) return;  // an engine is not dumpable: its links are root's to read
  const RealEngine real;
  if (!real.has(ipc::kJailNamespaces)) return;
  for (const char* name : {"user", "mnt", "net", "ipc", "uts", "cgroup"}) {
    INFO(name);
    const std::string ours = link_of("/proc/self/ns/" + std::string(name));
    CHECK_FALSE(ours.empty());
    CHECK(link_of(real.proc + "/ns/" + name) != ours);
  }
  REQUIRE(real.has(ipc::kJailEmptyRoot));
  const auto mounts = read_file(real.proc + "/mountinfo", 65536);
  REQUIRE(mounts);
  const std::string text(as_text(*mounts));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.find(" / / ro,nosuid,nodev,noexec") != std::string::npos);
  CHECK(text.find("tmpfs") != std::string::npos);
  CHECK(std::filesystem::is_empty(real.proc + "/root/"));
}
