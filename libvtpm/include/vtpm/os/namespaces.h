// SPDX-License-Identifier: Apache-2.0
// Namespaces (namespaces(7)) of a process's own, for jails.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

namespace vtpm {

// What becomes of the file systems that a process sees.
enum class Root {
  Kept,   // as they are: no mount namespace of its own
  Empty,  // an empty read-only root; the others are let go of, so that none of the host's is kept busy
};
// Moves the calling process, which must have one thread, into user, network, IPC, UTS and cgroup namespaces
// of its own, and a mount namespace with an empty root if asked for. In them it has all capabilities, over
// nothing of the host's; its user and group are numbered 65534 there, where the kernel permits a mapping at
// all. Open descriptors stay. An error (unprivileged user namespaces are switched off, a container forbids
// them, the root is an initramfs, which cannot be left): nothing has changed.
Result<> enter_own_namespaces(Root root);

struct ForkedProcess {
  pid_t pid;       // as the caller's namespace numbers it; 0 in the child
  UniqueFd pidfd;  // empty in the child
};
// A fork, optionally into a pid namespace whose first and only process is the child (needs CAP_SYS_ADMIN in
// the caller's user namespace): it then is pid 1 and can name no other process. For a caller with one thread:
// neither glibc's nor others' fork handlers run.
Result<ForkedProcess> fork_process(bool own_pid_namespace);

// Whether fork_process(true) works. Forks a process that ends at once, and reaps it.
bool may_make_pid_namespaces();

}  // namespace vtpm
