// SPDX-License-Identifier: Apache-2.0
#include "device/mount_point.h"
#include "device/node_path.h"

#include <vtpm/device/fuse_node.h>
#include <vtpm/os/file.h>
#include <vtpm/os/mount.h>
#include <vtpm/os/path.h>
#include <vtpm/os/process.h>

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <set>

namespace vtpm::device {
namespace {

struct ContainerRootIds {
  uid_t uid;
  gid_t gid;
};

Result<unsigned> mapped_root(pid_t pid, const char* map) {
  VTPM_TRY(const auto text, read_file("/proc/" + std::to_string(pid) + "/" + map, 65536));
  return id_of_container_root(as_text(text));
}

// The ids, seen from here, of the root user of the process' user namespace. A file made with other ids in a
// file system of that namespace fails with EOVERFLOW.
Result<ContainerRootIds> container_root_ids(int pidfd) {
  VTPM_TRY(const pid_t pid, pid_of_pidfd(pidfd));
  VTPM_TRY(const unsigned uid, mapped_root(pid, "uid_map"));
  VTPM_TRY(const unsigned gid, mapped_root(pid, "gid_map"));
  if (has_ended(pidfd)) return Error(ErrorCode::NotFound, "the container's process has ended");
  return ContainerRootIds{uid, gid};
}

// The mount itself goes to its first place and a clone of it to each further one: kernels before 6.15 refuse
// to clone a mount that is in no namespace yet (open_tree(2): EINVAL).
Result<> place_one(int root, const ContainerRootIds& ids, const Placement& placement, bool first) {
  VTPM_TRY(const auto parts, split(placement.path));
  auto directory = open_in_root(root, parts.directory, O_PATH | O_DIRECTORY);
  if (!directory) return directory.error().within("the container's directory for " + placement.path);
  VTPM_TRY(const auto point,
           mount_point(directory->get(), parts.name, ids.uid, ids.gid, "the container's " + placement.path));
  UniqueFd clone;
  if (!first) {
    VTPM_TRY(clone, clone_mount(placement.mount->get()));
  }
  const int mount = first ? placement.mount->get() : clone.get();
  if (auto moved = move_mount_onto(mount, point.file.get()); !moved)
    return moved.error().within(placement.path);
  return {};
}

}  // namespace

Result<FuseNode> make_fuse_node() {
  UniqueFd server(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!server && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
    return Error(ErrorCode::Unsupported,
                 "/dev/fuse is missing: this kernel has no FUSE (try `modprobe fuse`)");
  if (!server) return errno_error("/dev/fuse", errno);
  VTPM_TRY(auto mount, make_detached_mount("fuse",
                                           {{"source", "vtpm"},
                                            {"fd", std::to_string(server.get())},
                                            {"rootmode", "100666"},
                                            {"user_id", "0"},
                                            {"group_id", "0"},
                                            {"allow_other", ""}},
                                           MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
  return FuseNode{std::move(server), std::move(mount)};
}

Result<> place(const UniqueFd& mount, const std::string& path) {
  VTPM_TRY(const auto parts, split(path));
  VTPM_TRY(const auto directory, open_directory(parts.directory));
  VTPM_TRY(const auto point, mount_point(directory.get(), parts.name, ::geteuid(), ::getegid(), path));
  if (auto moved = move_mount_onto(mount.get(), point.file.get()); !moved) {
    if (point.made) ::unlinkat(directory.get(), parts.name.c_str(), 0);
    return moved.error().within(path);
  }
  return {};
}

Result<> place_in_container(int pidfd, const std::string& root, const std::vector<Placement>& placements) {
  VTPM_TRY(const auto ids, container_root_ids(pidfd));
  VTPM_TRY_VOID(join_namespaces(pidfd, CLONE_NEWNS));
  VTPM_TRY(const auto directory, open_directory(root));
  std::set<const UniqueFd*> placed;
  for (const auto& placement : placements) {
    const bool first = placed.insert(placement.mount).second;
    VTPM_TRY_VOID(place_one(directory.get(), ids, placement, first));
  }
  return {};
}

Result<> remove_node(const std::string& path) {
  VTPM_TRY(const auto parts, split(path));
  VTPM_TRY(const auto directory, open_directory(parts.directory));
  const auto open_node = [&] {
    return UniqueFd(::openat(directory.get(), parts.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  };
  {
    const UniqueFd node = open_node();
    if (!node) return errno_error(path, errno);
    VTPM_TRY(const bool ours, is_vtpm_mount(node.get()));
    if (!ours) return Error(ErrorCode::Conflict, path + " is not a vTPM's node");
    if (auto detached = detach_mount(node.get()); !detached) return detached.error().within(path);
  }
  const UniqueFd file = open_node();
  if (file && is_plain_empty_file(file.get()) && ::unlinkat(directory.get(), parts.name.c_str(), 0) != 0 &&
      errno != EROFS)
    return errno_error(path, errno);
  return {};
}

}  // namespace vtpm::device
