// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/jail.h"

#include "daemon/engine/endpoint.h"
#include "daemon/engine/landlock.h"
#include "daemon/engine/log.h"
#include "daemon/engine/seccomp_rows.h"
#include "daemon/ipc/frame.h"

#include <vtpm/os/file.h>
#include <vtpm/os/namespaces.h>
#include <vtpm/os/unique_fd.h>
#include <vtpm/os/unix_socket.h>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>

namespace vtpm::engine {
namespace {

// The log, the control socket and two of /dev/null, slot files, nodes, connections; and those that a message
// brings.
constexpr rlim_t kMaxDescriptors = 192;
static_assert(kMaxDescriptors >= 4 + 2 + kMaxNodes + kMaxConnections + kMaxMessageFds);
static_assert(kMaxDescriptors <= kReceivedEnd);
// The zygote has few, but the limit is also that of a user's descriptors on their way between processes, for
// the one that sends more. An engine can put its own limit and one message there, for ever: the zygote still
// sends its pidfds.
constexpr rlim_t kMaxOfZygote = 512;
constexpr rlim_t kMaxOneMessage = 253;  // SCM_MAX_FD
static_assert(kMaxOfZygote > kMaxDescriptors + kMaxOneMessage);
// The log may be a file, and it is the only file here: an engine does not fill the disk through it.
constexpr rlim_t kMaxLogFile = 64 << 20;
// Many times what one TPM needs: a leak ends the engine, not the host.
constexpr rlim_t kMaxMemory = 256 << 20;
constexpr std::size_t kMaxProgram = 32768;
// prctl(2), Linux 6.3; newer than the headers that this is built with.
constexpr int kSetMdwe = 65;
constexpr unsigned long kMdweRefuseExecGain = 1;

Error jail_error(std::string_view step, int errno_value) {
  return {ErrorCode::Internal, "jail: " + std::string(step) + ": " + std::strerror(errno_value)};
}

Result<> limit(int resource, rlim_t value, std::string_view name) {
  const rlimit both{value, value};
  if (::prlimit(0, static_cast<__rlimit_resource>(resource), &both, nullptr) != 0)
    return jail_error(name, errno);
  return {};
}

Result<> control(int option, unsigned long value, std::string_view name) {
  if (::prctl(option, value, 0, 0, 0) != 0) return jail_error(name, errno);
  return {};
}

// Of all capabilities at most `kept` (a bit below 32), and that only if we have it.
Result<> keep_capability(std::uint32_t kept) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3]{};
  sets[0].effective = sets[0].permitted = kept;
  if (::syscall(SYS_capset, &header, sets) != 0) return jail_error("capset", errno);
  return {};
}

// Whether an engine may lock all memory that it may have (RLIMIT_MEMLOCK; its soft limit is raised).
bool may_lock_all() {
#ifdef __SANITIZE_ADDRESS__
  return false;  // shadow memory knows no limit
#else
  rlimit both{};
  if (::getrlimit(RLIMIT_MEMLOCK, &both) != 0 || both.rlim_max < kMaxMemory) return false;
  both.rlim_cur = both.rlim_max;
  return ::setrlimit(RLIMIT_MEMLOCK, &both) == 0;
#endif
}

// What the kernel may lack or an administrator forbid is left out, with a line in the log.
template <class T>
bool has_part(const Result<T>& step, std::string_view name) {
  if (step) return true;
  log_line("jail without " + std::string(name) + ": " + step.error().context);
  return false;
}

Result<> close_from(unsigned first) {
  if (::syscall(SYS_close_range, first, ~0U, 0) != 0) return jail_error("close_range", errno);
  return {};
}

// Adds the row with `instead` in the place of its received(), if it has that.
Result<> add_rule(scmp_filter_ctx filter, const SyscallRow& row, std::uint32_t action,
                  const ArgumentTest& instead = {}) {
  std::array<scmp_arg_cmp, 3> comparisons{};
  unsigned count = 0;
  for (const ArgumentTest& of_row : row.tests()) {
    const ArgumentTest& test = of_row.received ? instead : of_row;
    if (test.index >= 0)
      comparisons[count++] = {static_cast<unsigned>(test.index), SCMP_CMP_MASKED_EQ, test.mask, test.value};
  }
  const int result =
      ::seccomp_rule_add_array(filter, action, static_cast<int>(row.number), count, comparisons.data());
  if (result != 0)
    return Error(ErrorCode::Unsupported,
                 "seccomp row " + std::to_string(row.number) + ": " + std::strerror(-result));
  return {};
}

Result<> add_row(scmp_filter_ctx filter, const SyscallRow& row, std::uint32_t action) {
  const auto tests = row.tests();
  const auto received = std::ranges::find(tests, true, &ArgumentTest::received);
  if (received == tests.end()) return add_rule(filter, row, action);
  for (std::uint64_t first = kFirstReceived; first < kReceivedEnd; first *= 2)
    VTPM_TRY_VOID(add_rule(filter, row, action, equals_but_for(received->index, first, first - 1)));
  if (received->or_log) return add_rule(filter, row, action, equals(received->index, STDERR_FILENO));
  return {};
}

Result<> add_rows(scmp_filter_ctx filter, std::span<const SyscallRow> rows, Role role,
                  std::uint32_t action = SCMP_ACT_ALLOW) {
  for (const auto& row : rows)
    if ((row.roles & static_cast<unsigned>(role)) != 0) VTPM_TRY_VOID(add_row(filter, row, action));
  return {};
}

// libseccomp 2.5 writes a program to a descriptor only.
Result<Bytes> export_program(scmp_filter_ctx filter) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return jail_error("pipe2", errno);
  const UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  // A pipe holds 64 KiB, the largest possible program (4096 instructions) half of it: this does not block.
  if (const int result = ::seccomp_export_bpf(filter, writer.get()); result != 0)
    return jail_error("seccomp_export_bpf", -result);
  writer.reset();
  return read_all(reader.get(), kMaxProgram);
}

}  // namespace

Result<SyscallFilter> SyscallFilter::compile(Role role) {
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(::seccomp_init(SCMP_ACT_KILL_PROCESS),
                                                                ::seccomp_release);
  if (!filter) return Error(ErrorCode::Unsupported, "seccomp_init failed");
  VTPM_TRY_VOID(add_rows(filter.get(), kSyscalls, role));
  VTPM_TRY_VOID(add_rows(filter.get(), kKeeperSyscalls, role));
  VTPM_TRY_VOID(add_rows(filter.get(), kRefusedSyscalls, role, SCMP_ACT_ERRNO(EPERM)));
#ifdef __SANITIZE_ADDRESS__
  VTPM_TRY_VOID(add_rows(filter.get(), kSanitizerSyscalls, role));
#endif
  VTPM_TRY(Bytes program, export_program(filter.get()));
  return SyscallFilter(std::move(program));
}

Result<> SyscallFilter::install() const {
  // The kernel only reads the instructions.
  auto* instructions = reinterpret_cast<sock_filter*>(const_cast<std::uint8_t*>(program_.data()));
  const sock_fprog program{static_cast<unsigned short>(program_.size() / sizeof(sock_filter)), instructions};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return jail_error("seccomp", errno);
  return {};
}

Result<JailParts> enter_zygote_jail(const SyscallFilter& filter) {
  JailParts parts = 0;
  // 1. Namespaces with nothing in them, where the kernel lets an ordinary user have them: no network, no
  // System V objects, no names of files. The kernel undoes a step that fails.
  if (has_part(enter_own_namespaces(Root::Empty), "an empty root"))
    parts |= ipc::kJailNamespaces | ipc::kJailEmptyRoot;
  else if (has_part(enter_own_namespaces(Root::Kept), "namespaces"))
    parts |= ipc::kJailNamespaces;
  if (parts != 0 && may_make_pid_namespaces()) parts |= ipc::kJailPidNamespaces;
  if (::chdir("/") != 0) return jail_error("chdir", errno);
  ::umask(0777);
  // 2. No privilege over these namespaces but to make pid namespaces, and none over the host's.
  VTPM_TRY_VOID(keep_capability((parts & ipc::kJailPidNamespaces) != 0 ? 1U << CAP_SYS_ADMIN : 0));
  // 3. Its memory is nobody's: no ptrace or /proc/pid/mem by the same user, no core file; and none of it
  // becomes a program.
  VTPM_TRY_VOID(control(PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE"));
  VTPM_TRY_VOID(limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
  if (::prctl(kSetMdwe, kMdweRefuseExecGain, 0, 0, 0) == 0) parts |= ipc::kJailNoExecGain;
  if (may_lock_all()) parts |= ipc::kJailLockedMemory;
  // 4. Bounds of what it may hold. Engines inherit them.
  VTPM_TRY_VOID(limit(RLIMIT_NOFILE, kMaxOfZygote, "RLIMIT_NOFILE"));
  VTPM_TRY_VOID(limit(RLIMIT_FSIZE, kMaxLogFile, "RLIMIT_FSIZE"));
  // 5. No program that it could execute would give it privileges; Landlock and seccomp ask for this.
  VTPM_TRY_VOID(control(PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS"));
  // 6. No right to any file, port, abstract socket or foreign process.
  if (has_part(enter_landlock(), "Landlock")) parts |= ipc::kJailLandlock;
  // 7. Only the system calls of the table, from here on.
  VTPM_TRY_VOID(filter.install());
  return parts;
}

Result<> enter_engine_jail(const SyscallFilter& filter, int control_fd, JailParts parts) {
  // 1. Nothing but the control socket, the log and /dev/null.
  if (control_fd != kControlFd && ::dup2(control_fd, kControlFd) < 0) return jail_error("dup2", errno);
  VTPM_TRY_VOID(close_from(kControlFd + 1));
  // 2. Few descriptors, and no children (not for root, which has no such limit: the filter forbids fork
  // anyway).
  VTPM_TRY_VOID(limit(RLIMIT_NOFILE, kMaxDescriptors, "RLIMIT_NOFILE"));
  VTPM_TRY_VOID(limit(RLIMIT_NPROC, 0, "RLIMIT_NPROC"));
  // 3. A leak ends the engine, not the host.
#ifndef __SANITIZE_ADDRESS__
  VTPM_TRY_VOID(limit(RLIMIT_AS, kMaxMemory, "RLIMIT_AS"));
#endif
  // 4. Nothing of it is ever written to swap, where the zygote saw that the limit permits this.
  if ((parts & ipc::kJailLockedMemory) != 0 && ::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
    return jail_error("mlockall", errno);
  // 5. No capability, not even over its own namespaces.
  VTPM_TRY_VOID(keep_capability(0));
  // 6. Only the engine's rows of the table.
  return filter.install();
}

Result<std::size_t> enter_keeper_jail(const SyscallFilter& filter) {
  // 1. As the zygote: no directory, no readable memory, no core file, no large log.
  if (::chdir("/") != 0) return jail_error("chdir", errno);
  ::umask(0777);
  VTPM_TRY_VOID(control(PR_SET_DUMPABLE, 0, "PR_SET_DUMPABLE"));
  VTPM_TRY_VOID(limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
  VTPM_TRY_VOID(limit(RLIMIT_FSIZE, kMaxLogFile, "RLIMIT_FSIZE"));
  // 2. No children (not for root, which has no such limit: the filter forbids fork anyway).
  VTPM_TRY_VOID(limit(RLIMIT_NPROC, 0, "RLIMIT_NPROC"));
  // 3. Descriptors are what it is for.
  rlimit descriptors{};
  if (::getrlimit(RLIMIT_NOFILE, &descriptors) != 0) return jail_error("RLIMIT_NOFILE", errno);
  VTPM_TRY_VOID(limit(RLIMIT_NOFILE, descriptors.rlim_max, "RLIMIT_NOFILE"));
  // 4. No capability, no right to files, ports and processes.
  VTPM_TRY_VOID(keep_capability(0));
  VTPM_TRY_VOID(control(PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS"));
  (void)has_part(enter_landlock(), "Landlock");
  // 5. Only the keeper's rows of the tables.
  VTPM_TRY_VOID(filter.install());
  return static_cast<std::size_t>(descriptors.rlim_max);
}

}  // namespace vtpm::engine
