// SPDX-License-Identifier: Apache-2.0
// No row of the keeper's jail is redundant: without it, what the keeper does somewhere ends in SIGSYS. A test
// program of its own: it is the parent of nobody but keepers.
#include "daemon/engine/seccomp_rows.h"
#include "tests/integration/keeper/fixture.h"
#include "tests/support/idle_process.h"

#include <vtpm/os/process.h>

#include <map>
#include <thread>

using namespace vtpm;
using namespace vtpm::engine;
using namespace vtpm::test;
using ipc::HeldKind;

namespace {

// Rows that this machine does not need, and who does.
std::map<long, std::string_view> needed_elsewhere() {
  std::map<long, std::string_view> rows = {
      {SYS_clock_gettime, "machines whose clock the vDSO cannot read (a virtual machine's, HPET)"},
  };
#ifdef __SANITIZE_ADDRESS__
  for (const long row : {SYS_brk, SYS_munmap})
    rows.emplace(row, "builds without AddressSanitizer, which has an allocator of its own");
#endif
  return rows;
}

constexpr std::uint64_t kLast = 9999;

void moment() {
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

// A keeper's life, without one system call. Its steps fail when it is killed.
class Life {
 public:
  explicit Life(long without)
      : program_(directory_.path("without-" + std::to_string(without))),
        path_(directory_.path("keeper.sock")) {
    std::filesystem::create_symlink(std::string(VTPM_BIN_DIR) + "/vtpm-engine-without-row", program_);
    REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    const UniqueFd listener = listen_at(path_);
    auto started = ipc::KeeperLink::start(program_, listener, path_, STDERR_FILENO);
    REQUIRE(started);
    link_.emplace(std::move(*started));
  }
  ~Life() {
    if (pid_t left = find_keeper(); left > 0) ::kill(left, SIGKILL);
    while (::waitpid(-1, nullptr, 0) > 0) {
    }
  }
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  // Until its end, which it comes to by itself or for want of the row. The wait status.
  int run() {
    if (holds() && hears_nonsense() && is_stopped() && loses_its_vtpmd()) (void)link_->quit();
    link_.reset();
    int status = -1;
    if (!ends(status)) FAIL_CHECK("the keeper goes on");
    return status;
  }

 private:
  bool ends(int& status) {
    for (const Deadline end = after(std::chrono::seconds(10)); std::chrono::steady_clock::now() < *end;) {
      const pid_t pid = ::waitpid(-1, &status, WNOHANG);
      if (pid > 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  bool holds() {
    for (std::uint64_t id = 1; id <= 2000; ++id)
      if (!link_->hold({id, HeldKind::Control, 0}, STDERR_FILENO)) return false;
    for (std::uint64_t id = 1; id <= 2000; ++id)
      if (!link_->release(id)) return false;
    // Without anything to hold it would end with the connection.
    return link_->hold({kLast, HeldKind::Control, 0}, STDERR_FILENO).has_value();
  }
  // A long request that is not for it, and one that is none: it says so in its log and hangs up.
  bool hears_nonsense() {
    UniqueFd socket = join();
    const Bytes part(ipc::kMaxPayload), nothing{1, 2, 3};
    for (int i = 0; i < 12; ++i)
      if (!send_message(socket.get(), ipc::encode({ipc::Verb::PowerOn, false, i < 11, 1, 0}, part)))
        return false;
    if (!ipc::receive_transfer(socket.get(), after(std::chrono::seconds(10)))) return false;
    if (!send_message(socket.get(), nothing) || !readable(socket.get())) return false;
    socket.reset();
    return come_back();
  }
  bool is_stopped() {
    const pid_t pid = find_keeper();
    moment();
    if (pid <= 0 || ::kill(pid, SIGSTOP) != 0) return false;
    moment();
    return ::kill(pid, SIGCONT) == 0 && link_->recall();
  }
  bool loses_its_vtpmd() {
    IdleProcess process;
    const UniqueFd node = listen_at(directory_.path("node.sock"));
    if (!link_->hold({1, HeldKind::Engine, 0}, process.pidfd())) return false;
    if (!link_->hold({1, HeldKind::Node, 0}, node.get())) return false;
    link_.reset();
    process.end();
    while (find_keeper() > 0 && connect_seqpacket(directory_.path("node.sock")))
      moment();
    return come_back() && link_->release(1) && link_->release(kLast);
  }
  UniqueFd join() {
    link_.reset();
    auto socket = connect_seqpacket(path_);
    return socket ? std::move(*socket) : UniqueFd();
  }
  bool come_back() {
    auto joined = ipc::KeeperLink::connect(path_);
    if (joined) link_.emplace(std::move(*joined));
    return joined && link_->recall();
  }

  TemporaryDirectory directory_;
  std::string program_;
  std::string path_;
  std::optional<ipc::KeeperLink> link_;
};

bool is_killed(long without) {
  const int status = Life(without).run();
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

}  // namespace

TEST_CASE("keeper's seccomp rows: with all of them it is not killed, and ends in order") {
  CHECK(Life(-1).run() == 0);
}

TEST_CASE("keeper's seccomp rows: without any one of them it is killed") {
  const auto elsewhere = needed_elsewhere();
  for (const SyscallRow& row : kKeeperSyscalls) {
    if (elsewhere.contains(row.number)) continue;
    INFO("system call " << row.number << ": " << row.reason);
    CHECK(is_killed(row.number));
  }
}
