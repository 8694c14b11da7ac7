// SPDX-License-Identifier: Apache-2.0
// Device nodes of the `socket` backend: a stream socket at a path, for clients that speak bare TPM commands
// and responses over it. Needs no privilege. Used by `vtpmctl attach`.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <string>

namespace vtpm::device {

// Makes a listening AF_UNIX stream socket at `path` in our own mount namespace. Who may write to it may
// connect: `mode` without the bits of the process's umask decides, as for any file that is made. A socket
// that is there already and on which nobody listens is replaced; something else: Conflict. The path is longer
// than a socket's may be (107 bytes): Malformed. After an error nothing is left.
Result<UniqueFd> make_socket_node(const std::string& path, mode_t mode = 0600);

// Takes back what make_socket_node() has made: ends the listener for all who have it, and removes it.
void take_back_socket_node(const UniqueFd& listener, const std::string& path);

// Whether what is at `path` is a socket; a link is not followed. Nothing there: false.
bool is_socket(const std::string& path);

// Removes the socket at `path`, once nobody listens on it: somebody does, or it is no socket: Conflict.
// Nothing there: NotFound.
Result<> remove_socket_node(const std::string& path);

}  // namespace vtpm::device
