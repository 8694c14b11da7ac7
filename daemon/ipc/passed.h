// SPDX-License-Identifier: Apache-2.0
// For loops that drop what they do not wait for: a peer that sends for ever never lets a receive time out.
#pragma once

#include <vtpm/os/unix_socket.h>

namespace vtpm::ipc {

inline bool passed(const Deadline& deadline) {
  return deadline && std::chrono::steady_clock::now() >= *deadline;
}

}  // namespace vtpm::ipc
