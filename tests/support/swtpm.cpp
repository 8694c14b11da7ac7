// SPDX-License-Identifier: Apache-2.0
#include "tests/support/swtpm.h"

#include <vtpm/os/file.h>
#include <vtpm/tpm/header.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <thread>

namespace vtpm::test {
namespace {

pid_t spawn(const std::vector<std::string>& arguments, const std::string& log) {
  std::vector<char*> argv;
  for (const auto& argument : arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));  // execvp's signature; it does not write
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

UniqueFd connect_stream(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::runtime_error("socket path too long: " + path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

Result<> receive_exactly(int fd, Bytes& into, std::size_t size) {
  while (into.size() < size) {
    std::array<std::uint8_t, tpm::kBufferMax> buffer;
    const ssize_t got = ::recv(fd, buffer.data(), std::min(buffer.size(), size - into.size()), 0);
    if (got <= 0) return Error(ErrorCode::Unreachable, "swtpm is gone");
    into.insert(into.end(), buffer.begin(), buffer.begin() + got);
  }
  return {};
}

}  // namespace

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "vtpm-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp: " + name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool has_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const auto end = std::min(rest.find(':'), rest.size());
    const std::string candidate = std::string(rest.substr(0, end)) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

int run_program(const std::vector<std::string>& arguments, const std::string& log) {
  const pid_t pid = spawn(arguments, log);
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

std::unique_ptr<Swtpm> Swtpm::start(const std::string& dir, bool started) {
  const std::string socket = dir + "/swtpm.sock";
  std::error_code ignored;
  std::filesystem::remove(socket, ignored);
  std::filesystem::remove(socket + ".ctrl", ignored);
  std::vector<std::string> arguments = {
      "swtpm",
      "socket",
      "--tpm2",
      "--server",
      "type=unixio,path=" + socket,
      "--ctrl",
      "type=unixio,path=" + socket + ".ctrl",  // where tpm2-tss looks for it
      "--tpmstate",
      "dir=" + dir,
      "--flags",
      started ? "startup-clear" : "not-need-init"};
  std::unique_ptr<Swtpm> swtpm(new Swtpm(spawn(arguments, dir + "/swtpm.log"), socket));
  while (!connect_stream(socket + ".ctrl") || !connect_stream(socket)) {
    if (::waitpid(swtpm->pid_, nullptr, WNOHANG) == swtpm->pid_) {
      swtpm->pid_ = -1;
      throw std::runtime_error("swtpm ended: see " + dir + "/swtpm.log");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return swtpm;
}

void Swtpm::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Swtpm::signal(int number) const {
  ::kill(pid_, number);
}

std::function<Result<Bytes>(BytesView)> Swtpm::connect() const {
  auto fd = std::make_shared<UniqueFd>(connect_stream(socket_));
  return [fd](BytesView command) -> Result<Bytes> {
    if (::send(fd->get(), command.data(), command.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(command.size()))
      return Error(ErrorCode::Unreachable, "swtpm is gone");
    Bytes response;
    VTPM_TRY_VOID(receive_exactly(fd->get(), response, tpm::kHeaderSize));
    VTPM_TRY_VOID(receive_exactly(fd->get(), response, get_be<std::uint32_t>(response, 2)));
    return response;
  };
}

}  // namespace vtpm::test
