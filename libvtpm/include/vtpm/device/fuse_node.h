// SPDX-License-Identifier: Apache-2.0
// Device nodes of the `fuse` backend: a detached FUSE mount whose root is a regular file, moved to where a
// container expects its TPM. Used by the OCI hook and `vtpmctl attach`; needs CAP_SYS_ADMIN over the target's
// mount namespace.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <string>
#include <vector>

namespace vtpm::device {

// The two ends of a new node: vtpmd gets `server`, `mount` is moved into place.
struct FuseNode {
  UniqueFd server;  // /dev/fuse, FUSE_INIT pending
  UniqueFd mount;   // detached mount
};

// Makes a detached FUSE mount (fsopen, fsmount; root mode a regular file 0666, allow_other, nosuid, nodev,
// noexec), its source named "vtpm". No /dev/fuse: Unsupported, saying `modprobe fuse`.
Result<FuseNode> make_fuse_node();

// Moves `mount` to `path` in our own mount namespace; makes an empty file there first if there is none. A
// path that exists and is not an empty regular file: Conflict.
Result<> place(const UniqueFd& mount, const std::string& path);

// One place in a container: a path inside its root ("/dev/vtpm") and the detached mount for it. Several names
// of one node are clones (open_tree) of its mount.
struct Placement {
  std::string path;
  const UniqueFd* mount;
};

// Joins the mount namespace of the process behind `pidfd` (for the rest of the calling process' life: a hook
// ends anyway), and moves each mount to root + path there. `root` is the container's root file system as seen
// in that namespace. Paths are resolved beneath root, without following links out of it; missing parents are
// not made. Files are made with the ids of the container's root user.
Result<> place_in_container(int pidfd, const std::string& root, const std::vector<Placement>& placements);

// Unmounts the vtpm node at `path` (Conflict if what is mounted there is not ours) and removes the empty
// file.
Result<> remove_node(const std::string& path);

}  // namespace vtpm::device
