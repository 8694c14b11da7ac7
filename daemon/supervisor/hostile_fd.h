// SPDX-License-Identifier: Apache-2.0
// Descriptors that a peer passed. Behind them may be a file system of the peer's own (FUSE) that never
// answers: what can be asked without asking it is asked here first; the rest is done by workers that may
// stall.
#pragma once

#include <vtpm/os/result.h>

#include <string>

namespace vtpm::supervisor {

// An OCI config.json is not larger, bytes.
inline constexpr std::size_t kMaxConfig = 4 * 1024 * 1024;

// The character device 10:229. Malformed otherwise. Does not block.
Result<> check_fuse_device(int fd);
// A Unix stream socket that listens. Malformed otherwise. Does not block.
Result<> check_listening_socket(int fd);
// A regular file. Malformed otherwise. Does not block.
Result<> check_regular_file(int fd);
// A cgroup.procs, of either version, that is open for writing. Malformed otherwise. Does not block, nor does
// writing to one wait for a process: the kernel alone is behind it.
Result<> check_cgroup_procs(int fd);
// "sha256:" and the hexadecimal digest of the whole regular file, whatever its offset. Over kMaxConfig:
// Malformed. May block for ever.
Result<std::string> digest_of_file(int fd);

}  // namespace vtpm::supervisor
