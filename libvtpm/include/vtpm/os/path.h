// SPDX-License-Identifier: Apache-2.0
// Opening and making files in trees that somebody else controls.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <string>

namespace vtpm {

// Opens `path` as if the directory behind `root` were "/" (openat2(2), RESOLVE_IN_ROOT): neither "..",
// absolute paths, symbolic nor magic links lead out of it. `flags` as of open(2); close-on-exec is added.
// Missing: NotFound.
Result<UniqueFd> open_in_root(int root, const std::string& path, int flags);
// Opens the relative `path` below a directory, on the same mount and through no symbolic link of any kind
// (openat2(2)): anything else in the way is an error. Close-on-exec is added. Missing: NotFound.
Result<UniqueFd> open_beneath(int directory, const std::string& path, int flags);

// Makes the empty file `name` (no slash) in a directory, owned by `uid` and `gid` and made with their rights:
// the ids must be known to the file system's user namespace. Exists already: Conflict. The fd is O_PATH.
// Only for single-threaded programs: it changes the thread's fsuid and fsgid for a moment.
Result<UniqueFd> make_empty_file(int directory, const std::string& name, uid_t uid, gid_t gid);

}  // namespace vtpm
