// SPDX-License-Identifier: Apache-2.0
// The mount API's system calls (fsopen(2) and friends), with Result.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <string>
#include <utility>
#include <vector>

namespace vtpm {

// fsopen + fsconfig + fsmount: a detached mount. Options with an empty value are flags; mount_attributes are
// MOUNT_ATTR_*. Errors name the file system and the kernel's message where it gives one.
Result<UniqueFd> make_detached_mount(const std::string& type,
                                     const std::vector<std::pair<std::string, std::string>>& options,
                                     unsigned mount_attributes);
// open_tree(OPEN_TREE_CLONE) of a mount given by its fd.
Result<UniqueFd> clone_mount(int mount);
// move_mount of a detached mount onto an open file.
Result<> move_mount_onto(int mount, int target);
// Detaches the mount whose root is open as `mount` from the tree (umount2(2), MNT_DETACH).
Result<> detach_mount(int mount);
// setns(2) into the namespaces (CLONE_NEW*) of the process behind a pidfd.
Result<> join_namespaces(int pidfd, int which);

}  // namespace vtpm
