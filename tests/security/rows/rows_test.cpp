// SPDX-License-Identifier: Apache-2.0
// No row of the jail is redundant: without it, what engines and their zygote do somewhere ends in SIGSYS.
#include "daemon/engine/seccomp_rows.h"
#include "tests/integration/socket_node/connected.h"

#include <vtpm/os/process.h>

#include <sys/wait.h>

#include <filesystem>
#include <map>
#include <thread>

using namespace vtpm;
using namespace vtpm::engine;
using namespace vtpm::test;

namespace {

// Rows that this machine, or this user, does not need, and who does.
std::map<long, std::string_view> needed_elsewhere() {
  std::map<long, std::string_view> rows = {
      {SYS_fstat, "other versions of glibc"},
      {SYS_newfstatat, "other versions of glibc"},
      {SYS_mlockall, "a limit of locked memory of 256 MiB or more"},
      {SYS_mremap, "a realloc of more than 128 KiB"},
      {SYS_madvise, "other versions of glibc"},
  };
#ifdef __SANITIZE_ADDRESS__
  for (const long row : {SYS_brk, SYS_mlock, SYS_munlock})
    rows.emplace(row, "builds without AddressSanitizer, which has these calls of its own");
#endif
  return rows;
}

// TPM2_CreatePrimary of an RSA-2048 storage key: a long command, during which an engine looks at its clients.
Bytes create_rsa() {
  Writer area;
  area.add(u16{0x0001}).add(u16{0x000b}).add(u32{0x00030072}).add(u16{0});
  area.add(u16{0x0006})
      .add(u16{128})
      .add(u16{0x0043})
      .add(u16{0x0010})
      .add(u16{2048})
      .add(u32{0})
      .add(u16{0});
  Writer parameters;
  parameters.add(u16{4}).add(u16{0}).add(u16{0});
  parameters.add(static_cast<u16>(area.size())).add(area).add(u16{0}).add(u32{0});
  return authorized(0x131, kOwner, parameters);
}

class Program {
 public:
  explicit Program(long without) : path_(directory_.path("without-" + std::to_string(without))) {
    std::filesystem::create_symlink(std::string(VTPM_BIN_DIR) + "/vtpm-engine-without-row", path_);
  }
  Result<std::unique_ptr<ipc::Zygote>> start() const { return ipc::Zygote::start(path_, STDERR_FILENO); }

 private:
  TemporaryDirectory directory_;
  std::string path_;
};

bool is_sigsys(int code, int status) {
  return (code == CLD_KILLED || code == CLD_DUMPED) && status == SIGSYS;
}

bool zygote_killed(const ipc::Zygote& zygote) {
  siginfo_t info{};
  if (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(zygote.pidfd()), &info,
               WEXITED | WNOHANG | WNOWAIT) != 0)
    return false;
  return info.si_pid != 0 && is_sigsys(info.si_code, info.si_status);
}

// What a program does; false: a step failed, as it does when the engine is killed.
class Work {
 public:
  explicit Work(ipc::Zygote& zygote) : zygote_(zygote) {}
  bool killed() { return killed_ || zygote_killed(zygote_); }

  void run() {
    ephemeral();
    if (killed()) return;
    durable();
    if (killed()) return;
    interrupted();
    if (killed()) return;
    served();
  }

 private:
  // An engine's life; its end is looked at.
  void with_engine(const std::function<void(ipc::SpawnedEngine&)>& life) {
    auto engine = zygote_.spawn();
    if (!engine) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // until its end can be seen
      return;
    }
    life(*engine);
    engine->link.reset();
    if (const auto exit = zygote_.exit_of(engine->pid, std::chrono::seconds(5)))
      killed_ = killed_ || (WIFSIGNALED(exit->status) && WTERMSIG(exit->status) == SIGSYS);
  }
  static bool ok(ipc::EngineLink& link, BytesView command) {
    const auto response = link.transmit(tpm::Locality::tenant(), command);
    return response && code_of(*response) == 0;
  }

  void ephemeral() {
    with_engine([](ipc::SpawnedEngine& engine) {
      auto& link = *engine.link;
      // What libtpms does not understand it says in the log.
      if (const auto refused = link.power_on(Bytes(64, 0x11)); !refused && link.power_on()) {
        (void)ok(link, startup_clear());
        // In quick succession, until it looks before it sleeps.
        for (int i = 0; i < 2000 && ok(link, get_random(16)); ++i) {
        }
        (void)ok(link, create_primary(kOwner));
        (void)link.hash_sequence(Bytes(65536));
        (void)link.permanent_state();
        (void)link.shutdown();
      }
    });
  }
  void durable() {
    const TemporaryDirectory directory;
    const auto slot = [&](const char* name) {
      return UniqueFd(::open(directory.path(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    };
    with_engine([&](ipc::SpawnedEngine& engine) {
      const auto key = Secret::random(ipc::kStateKeySize);
      if (engine.link->power_on_durable({}, *key, 0, slot("a"), slot("b")) &&
          ok(*engine.link, startup_clear()))
        (void)engine.link->shutdown();
    });
  }
  // Stopped and continued while it waits.
  void interrupted() {
    with_engine([](ipc::SpawnedEngine& engine) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      (void)signal_process(engine.pidfd.get(), SIGSTOP);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      (void)signal_process(engine.pidfd.get(), SIGCONT);
      (void)engine.link->power_on();
    });
  }
  // A socket, which needs no privilege; a device file needs the same system calls but for accept4.
  void served() {
    with_engine([](ipc::SpawnedEngine& engine) {
      if (!engine.link->power_on() || !ok(*engine.link, startup_clear())) return;
      Listener listener;  // the engine's alone: nobody waits for a dead one
      if (!engine.link->serve(NodeKind::Managed, listener.take(), ipc::kChannelSocket)) return;
      {
        const UniqueFd socket = connect_to(listener);
        std::uint8_t response[4096];
        for (const Bytes& command : {get_random(16), create_rsa()})
          if (::send(socket.get(), command.data(), command.size(), MSG_NOSIGNAL) > 0 && comes(socket))
            (void)!::read(socket.get(), response, sizeof response);
      }
      (void)engine.link->status();  // after the connection is gone
    });
  }

  ipc::Zygote& zygote_;
  bool killed_ = false;
};

// Whether somebody was killed for want of the row.
bool is_needed(long number) {
  const Program program(number);
  const auto zygote = program.start();
  if (!zygote) return true;
  Work work(**zygote);
  work.run();
  return work.killed();
}

}  // namespace

TEST_CASE("seccomp rows: with all of them nobody is killed") {
  CHECK_FALSE(is_needed(-1));
}

TEST_CASE("seccomp rows: without any one of them somebody is killed") {
  std::vector<SyscallRow> rows(kSyscalls.begin(), kSyscalls.end());
  rows.insert(rows.end(), kRefusedSyscalls.begin(), kRefusedSyscalls.end());
  const auto elsewhere = needed_elsewhere();
  for (const SyscallRow& row : rows) {
    if (elsewhere.contains(row.number)) continue;
    INFO("system call " << row.number << ": " << row.reason);
    CHECK(is_needed(row.number));
  }
}
