// SPDX-License-Identifier: Apache-2.0
// The system calls that the jail permits, each with its reason. Everything else kills the process (SIGSYS).
#pragma once

#include "daemon/engine/jail.h"
#include "daemon/ipc/engine_link.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <string_view>

namespace vtpm::engine {

// Whose row. An engine's filter lies atop the zygote's, and a call must pass both: what an engine may, the
// zygote may.
inline constexpr unsigned kZygote = static_cast<unsigned>(Role::Zygote);
inline constexpr unsigned kBoth = kZygote | static_cast<unsigned>(Role::Engine);

// A row's condition: argument `index` & mask == value, or that argument is a descriptor that was received, or
// perhaps the log. index -1: no condition.
struct ArgumentTest {
  int index = -1;
  std::uint64_t mask = 0;
  std::uint64_t value = 0;
  bool received = false;
  bool or_log = false;
};
constexpr ArgumentTest equals(int index, std::uint64_t value) {
  return {index, ~std::uint64_t{0}, value};
}
constexpr ArgumentTest equals_but_for(int index, std::uint64_t value, std::uint64_t ignored) {
  return {index, ~ignored, value};
}
constexpr ArgumentTest without(int index, std::uint64_t bits) {
  return {index, bits, 0};
}
constexpr ArgumentTest with(int index, std::uint64_t bits) {
  return {index, bits, bits};
}
// A descriptor beyond kControlFd: neither the control socket nor the log, whose flags and position vtpmd and
// all engines share.
constexpr ArgumentTest received(int index) {
  return {index, 0, 0, true};
}
constexpr ArgumentTest received_or_log(int index) {
  return {index, 0, 0, true, true};
}
// The numbers that those have, in ranges that one comparison of all 64 bits tells: 4-7, 8-15 and so on. (The
// kernel looks at 32 bits of a descriptor: "greater than 3" of 64 would let descriptor 2 through.)
inline constexpr std::uint64_t kFirstReceived = kControlFd + 1;
inline constexpr std::uint64_t kReceivedEnd = 256;
static_assert(std::has_single_bit(kFirstReceived) && std::has_single_bit(kReceivedEnd));

struct SyscallRow {
  long number;
  unsigned roles;
  ArgumentTest test;
  std::string_view reason;
  // Further conditions.
  ArgumentTest also = {};
  ArgumentTest besides = {};

  constexpr std::array<ArgumentTest, 3> tests() const { return {test, also, besides}; }
};

// What fork_process() asks for: a process, nothing shared, no new namespace but perhaps one of pids.
inline constexpr std::uint64_t kForkFlags = CLONE_PIDFD | SIGCHLD;

inline constexpr std::uint64_t kLockAll = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;

inline constexpr std::array kSyscalls = {
    // The loops.
    SyscallRow{SYS_poll, kBoth, {}, "waits for the control socket, devices and ended children"},
    SyscallRow{SYS_sched_yield, kBoth, {}, "an engine that looks for requests lets its client run first"},
    SyscallRow{SYS_restart_syscall, kBoth, {}, "a poll continues after SIGSTOP and SIGCONT, or a freezer"},
    SyscallRow{SYS_recvmsg, kBoth, equals(0, kControlFd), "frames from vtpmd"},
    SyscallRow{SYS_sendmsg, kBoth, equals(0, kControlFd), "frames to vtpmd"},
    SyscallRow{SYS_read, kBoth, received(0),
               "FUSE requests; commands from connections; the zygote's signalfd"},
    SyscallRow{SYS_write, kBoth, received_or_log(0), "FUSE replies; responses to connections; the log"},
    SyscallRow{SYS_accept4, kBoth, received(0),
               "a client connects to a socket node; its address is not asked for",
               equals(3, SOCK_NONBLOCK | SOCK_CLOEXEC), equals(1, 0)},
    SyscallRow{
        SYS_close, kBoth, {}, "a device whose mount is gone; a connection that is over; the zygote's copies"},
    SyscallRow{SYS_fcntl, kBoth, received(0), "O_NONBLOCK on a device or listener that was received",
               equals(1, F_SETFL), equals(2, O_NONBLOCK)},
    SyscallRow{SYS_lseek, kBoth, equals(0, STDERR_FILENO),
               "libtpms' messages: dprintf asks for the log's position", equals(1, 0), equals(2, SEEK_CUR)},
    SyscallRow{SYS_exit_group, kBoth, {}, "the end"},
    // Memory. Nothing becomes executable.
    SyscallRow{SYS_brk, kBoth, {}, "malloc"},
    SyscallRow{SYS_mmap, kBoth, without(2, PROT_EXEC), "malloc of large blocks", with(3, MAP_ANONYMOUS)},
    SyscallRow{SYS_munmap, kBoth, {}, "free of large blocks"},
    // The state of a durable TPM.
    SyscallRow{SYS_pread64, kBoth, received(0), "the slot files, read once at power-on"},
    SyscallRow{SYS_pwrite64, kBoth, received(0),
               "a commit into a slot file; not write: the place must not depend on a position"},
    SyscallRow{SYS_fdatasync, kBoth, received(0), "a commit is on disk before its response leaves"},
    SyscallRow{SYS_mlock, kBoth, equals(1, ipc::kStateKeySize), "the state key is not swapped out"},
    SyscallRow{SYS_munlock, kBoth, equals(1, ipc::kStateKeySize), "the state key is wiped"},
    // OpenSSL and libtpms.
    SyscallRow{SYS_futex, kBoth, {}, "pthread_once wakes even where nobody waits"},
    SyscallRow{SYS_getrandom, kBoth, {}, "the seed of OpenSSL's random generator"},
    SyscallRow{SYS_getpid, kBoth, {}, "OpenSSL notices a fork by it; the log's prefix"},
    SyscallRow{SYS_clock_gettime,
               kBoth,
               {},
               "an engine's CPU time; the TPM's clock, where the vDSO cannot read the time"},
    // A look at the clients during a long command (long_command.h).
    SyscallRow{SYS_setitimer, kBoth, equals(0, ITIMER_REAL), "the timer that interrupts key generation"},
    SyscallRow{SYS_rt_sigreturn, kBoth, {}, "the return from its handler"},
    // Making engines.
    SyscallRow{SYS_clone, kZygote, equals_but_for(0, kForkFlags, CLONE_NEWPID), "fork of an engine"},
    SyscallRow{SYS_rt_sigprocmask, kZygote, {}, "the child unblocks SIGCHLD"},
    SyscallRow{SYS_wait4, kZygote, {}, "reaps engines"},
    SyscallRow{SYS_dup2, kZygote, {}, "the engine's control socket becomes descriptor 3"},
    SyscallRow{SYS_close_range, kZygote, {}, "an engine keeps no descriptor of the zygote's"},
    SyscallRow{SYS_prlimit64, kZygote, equals(0, 0), "an engine's own limits (pid 0: itself)"},
    SyscallRow{SYS_capset, kZygote, {}, "an engine gives up what makes pid namespaces"},
    SyscallRow{SYS_mlockall, kZygote, equals(0, kLockAll), "an engine's memory is never in swap"},
    SyscallRow{SYS_seccomp, kZygote, equals(0, SECCOMP_SET_MODE_FILTER), "an engine's own filter, atop this"},
};

// What the keeper may: receive descriptors, hold them, give them back.
inline constexpr unsigned kKeeper = static_cast<unsigned>(Role::Keeper);
inline constexpr std::array kKeeperSyscalls = {
    SyscallRow{SYS_poll, kKeeper, {}, "waits for vtpmd, and for engines that end while there is none"},
    SyscallRow{SYS_restart_syscall, kKeeper, {}, "a poll continues after SIGSTOP and SIGCONT, or a freezer"},
    SyscallRow{SYS_accept4, kKeeper, {}, "a vtpmd connects"},
    SyscallRow{SYS_getsockopt, kKeeper, equals(2, SO_PEERCRED), "whose connection it is"},
    SyscallRow{SYS_getuid, kKeeper, {}, "whether that is its own user"},
    SyscallRow{SYS_recvmsg, kKeeper, {}, "frames from vtpmd"},
    SyscallRow{SYS_sendmsg, kKeeper, {}, "frames to vtpmd"},
    SyscallRow{SYS_close, kKeeper, {}, "what it no longer holds"},
    SyscallRow{
        SYS_shutdown, kKeeper, equals(1, SHUT_RDWR),
        "ends a socket node for which no vtpmd comes: to close it could wait for what its clients sent"},
    SyscallRow{SYS_write, kKeeper, {}, "the log"},
    SyscallRow{SYS_getpid, kKeeper, {}, "the log's prefix"},
    SyscallRow{SYS_clock_gettime, kKeeper, {}, "deadlines, where the vDSO cannot read the time"},
    SyscallRow{SYS_exit_group, kKeeper, {}, "the end"},
    SyscallRow{SYS_brk, kKeeper, {}, "malloc"},
    SyscallRow{SYS_mmap, kKeeper, without(2, PROT_EXEC), "malloc of large blocks", with(3, MAP_ANONYMOUS)},
    SyscallRow{SYS_munmap, kKeeper, {}, "free of large blocks"},
};

// Calls that are answered EPERM instead of killing the process, since their caller goes on without them.
inline constexpr std::array kRefusedSyscalls = {
    SyscallRow{SYS_newfstatat, kBoth, {}, "libtpms' messages: dprintf asks what kind of file the log is"},
    SyscallRow{SYS_fstat, kBoth, {}, "likewise, with other versions of glibc"},
    SyscallRow{SYS_mremap, kBoth | kKeeper, {}, "realloc of large blocks: glibc then copies them"},
    SyscallRow{SYS_madvise, kBoth | kKeeper, {}, "free would give pages back"},
};

#ifdef __SANITIZE_ADDRESS__
// A weakening for sanitizer builds alone: what AddressSanitizer's run time calls.
inline constexpr unsigned kAll = kBoth | kKeeper;
inline constexpr std::array kSanitizerSyscalls = {
    SyscallRow{SYS_mprotect, kAll, without(2, PROT_EXEC), "shadow memory"},
    SyscallRow{SYS_sigaltstack, kAll, {}, "signal stack of a new thread or process"},
    SyscallRow{SYS_readlink, kAll, {}, "the name of the program, for reports"},
    SyscallRow{SYS_getrusage, kAll, {}, "memory statistics"},
    SyscallRow{SYS_ioctl, kAll, equals(1, TCGETS), "a report asks whether the log is a terminal"},
    SyscallRow{SYS_pipe2, kAll, {}, "UBSan asks whether memory is readable by writing it to a pipe"},
};
#endif

}  // namespace vtpm::engine
