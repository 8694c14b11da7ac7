// SPDX-License-Identifier: Apache-2.0
// The daemon's directories and listening sockets.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <optional>
#include <string>

namespace vtpm::supervisor {

// Makes the directory when it is missing (its parent must exist) and locks it for this process: held until
// the descriptor closes. Another vtpmd has it: Conflict, with the directory.
Result<UniqueFd> claim_directory(const std::string& path, mode_t mode);

struct SocketSpec {
  std::string path;
  int type;  // SOCK_STREAM or SOCK_SEQPACKET
  mode_t mode;
  std::optional<gid_t> group;
};
// A listening, non-blocking socket. What an earlier vtpmd left at the path is removed: the caller holds the
// directory's lock, so nobody serves it.
Result<UniqueFd> listen_at(const SocketSpec& spec);

}  // namespace vtpm::supervisor
