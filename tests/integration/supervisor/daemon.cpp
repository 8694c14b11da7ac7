// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/supervisor/daemon.h"

#include "daemon/ipc/keeper_link.h"

#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

namespace vtpm::test {
namespace {

using namespace std::chrono_literals;

constexpr uid_t kNobody = 65534;
constexpr auto kPatience = 10s;
constexpr int kReadyMs = 30'000;

[[noreturn]] void die(const char* what) {
  std::perror(what);
  std::abort();
}

UniqueFd notify_socket(const std::string& path) {
  ::unlink(path.c_str());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("notify socket");
  if (::chmod(path.c_str(), 0666) != 0) die("chmod");
  return socket;
}

void become(uid_t uid) {
  if (::geteuid() != 0) return;
  if (::setgroups(0, nullptr) != 0 || ::setresgid(uid, uid, uid) != 0 || ::setresuid(uid, uid, uid) != 0)
    die("setuid");
}

// Not before become(): a process that changes its user forgets the signal.
void end_with_parent() {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) die("PR_SET_PDEATHSIG");
}

[[noreturn]] void execute(const Place& place, std::vector<std::string> arguments) {
  const std::string log = place.directory / "log";
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (out < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) ::_exit(126);
  ::setenv("NOTIFY_SOCKET", (place.directory / "notify").c_str(), 1);
  ::unsetenv("JOURNAL_STREAM");
  if (place.descriptors) {
    const rlimit limit{*place.descriptors, *place.descriptors};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) die("RLIMIT_NOFILE");
  }
  become(daemon_uid());
  end_with_parent();
  std::vector<char*> argv;
  for (auto& argument : arguments)
    argv.push_back(argument.data());
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

// READY=1 arrived, rather than the process's end.
bool wait_until_ready(int socket, pid_t pid) {
  const auto pidfd = open_pidfd(pid);
  for (;;) {
    pollfd fds[] = {{socket, POLLIN, 0}, {pidfd ? pidfd->get() : -1, POLLIN, 0}};
    if (::poll(fds, 2, kReadyMs) <= 0) return false;
    char text[512];
    const ssize_t n = ::recv(socket, text, sizeof text, MSG_DONTWAIT);
    if (n > 0 &&
        std::string_view(text, static_cast<std::size_t>(n)).find("READY=1") != std::string_view::npos)
      return true;
    if (n < 0 && fds[1].revents != 0) return false;
  }
}

// A program where another user can reach it: the build may be in a directory that is closed to others.
void publish(const std::string& name, const std::string& directory) {
  const std::string from = std::string(VTPM_BIN_DIR "/") + name, to = directory + "/" + name;
  std::error_code error;
  std::filesystem::create_hard_link(from, to, error);
  if (error) std::filesystem::copy_file(from, to);  // another file system
}

}  // namespace

uid_t daemon_uid() {
  return ::geteuid() == 0 ? kNobody : ::geteuid();
}

Place::Place() {
  for (const std::string& path : {state(), runtime()}) {
    if (::mkdir(path.c_str(), 0755) != 0) die("mkdir");
    if (::geteuid() == 0 && ::chown(path.c_str(), daemon_uid(), daemon_uid()) != 0) die("chown");
  }
  if (::chmod(directory.path().c_str(), 0755) != 0) die("chmod");
  if (::mkdir(programs().c_str(), 0755) != 0) die("mkdir");
  for (const char* name : {"vtpmd", "vtpm-engine"})
    publish(name, programs());
}

void Place::end_keeper() const {
  as_user(daemon_uid(), [this] {
    auto keeper = ipc::KeeperLink::connect(runtime() + "/keeper.sock");
    if (!keeper) return 0;
    const auto held = keeper->recall();
    if (!held) return 1;
    for (const auto& one : *held)
      (void)keeper->release(one.key.instance);
    return keeper->quit() ? 0 : 1;
  });
}

bool Place::has_keeper() const {
  return as_user(daemon_uid(), [this] {
           auto keeper = ipc::KeeperLink::connect(runtime() + "/keeper.sock");
           return keeper && keeper->recall() ? 1 : 0;
         }) == 1;
}

std::string Place::log() const {
  const auto text = read_file(directory / "log", 1 << 20);
  return text ? std::string(as_text(*text)) : std::string();
}

std::unique_ptr<Daemon> Daemon::start(const Place& place, const std::string& anchor,
                                      const std::vector<std::string>& more) {
  const UniqueFd ready = notify_socket(place.directory / "notify");
  std::vector<std::string> arguments{place.programs() + "/vtpmd", "--state-dir", place.state(),
                                     "--runtime-dir", place.runtime()};
  if (!anchor.empty()) arguments.insert(arguments.end(), {"--anchor", anchor});
  arguments.insert(arguments.end(), more.begin(), more.end());
  const pid_t pid = ::fork();
  if (pid < 0) die("fork");
  if (pid == 0) execute(place, std::move(arguments));
  std::unique_ptr<Daemon> daemon(new Daemon(pid, place.runtime()));
  daemon->ready_ = wait_until_ready(ready.get(), pid);
  return daemon;
}

Daemon::~Daemon() {
  if (!ended_) stop(SIGKILL);
}

int Daemon::stop(int signal) {
  if (signal != 0) ::kill(pid_, signal);
  int status = -1;
  ::waitpid(pid_, &status, 0);
  ended_ = true;
  return status;
}

std::size_t Daemon::descriptors() const {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/fd"))
    ++count;
  return count;
}

int as_user(uid_t uid, const std::function<int()>& work) {
  const pid_t pid = ::fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    become(uid);
    end_with_parent();
    ::_exit(work());
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool eventually(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < end) {
    if (done()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return done();
}

}  // namespace vtpm::test
