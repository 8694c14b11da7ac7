// SPDX-License-Identifier: Apache-2.0
// The cgroup that pays for a container's CPU time: cgroups(7), Documentation/admin-guide/cgroup-v2.rst.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vtpm::device {

inline constexpr std::size_t kMaxMountInfo = 16 * 1024 * 1024;
inline constexpr std::size_t kMaxProcCgroup = 256 * 1024;

// A hierarchy as it is mounted: with its root, so that paths in /proc/PID/cgroup are paths below it.
struct CgroupMount {
  std::uint32_t major, minor;  // of its files' st_dev
  std::string point;           // absolute, in the mount namespace of the text
  bool unified;                // cgroup2; or else a version 1 hierarchy
  bool cpu;                    // version 1, with the controller cpu
};

// The cgroup mounts in the text of /proc/PID/mountinfo, in its order; those of a part of a hierarchy alone
// are left out. A line of a cgroup mount that cannot be read: Malformed.
Result<std::vector<CgroupMount>> cgroup_mounts(std::string_view mountinfo);

// The path of a process in the text of its /proc/PID/cgroup, of the unified hierarchy or of that with the
// version 1 controller cpu: absolute, 1 to 4096 bytes. It is not below our own root, or its cgroup is
// removed: Unsupported. No such hierarchy: NotFound. Another text: Malformed.
Result<std::string> cgroup_path(std::string_view text, bool unified);

// The cgroup.procs, open for writing, of the cgroup whose CPU time the process behind `pidfd` uses: in the
// hierarchy of the version 1 controller cpu where one is mounted, else in the unified one. It has no cgroup
// other than the caller's: Unsupported. None is mounted: NotFound. It may not be written to:
// PermissionDenied. Blocks no longer than local files do.
Result<UniqueFd> open_cgroup_procs(int pidfd);

}  // namespace vtpm::device
