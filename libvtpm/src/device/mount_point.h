// SPDX-License-Identifier: Apache-2.0
// The file that a device node is mounted on.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <string>

namespace vtpm::device {

struct MountPoint {
  UniqueFd file;  // O_PATH
  bool made;      // by us, just now
};

// The file `name` in `directory`: an empty regular file that is there already, else made for `uid` and `gid`.
// Anything else there (a device, a mount, a link, contents): Conflict, saying what it is. `shown` is the path
// for errors.
Result<MountPoint> mount_point(int directory, const std::string& name, uid_t uid, gid_t gid,
                               const std::string& shown);

// Whether the file is an empty regular file with nothing mounted on it. Asks no FUSE server, which might
// never answer.
bool is_plain_empty_file(int file) noexcept;

// Whether what `file` is open on is the root of a mount that make_fuse_node made.
Result<bool> is_vtpm_mount(int file);

// Finds `id` among the lines of a /proc/PID/uid_map or gid_map: the id outside for id 0 inside. None:
// NotFound.
Result<unsigned> id_of_container_root(std::string_view map);

}  // namespace vtpm::device
