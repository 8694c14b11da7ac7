// SPDX-License-Identifier: Apache-2.0
// Unix SEQPACKET sockets that carry a message and descriptors, and the credentials of a peer.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <vector>

namespace vtpm {

// At most this many descriptors travel with one message; a message with more is refused.
inline constexpr std::size_t kMaxMessageFds = 8;

struct Message {
  Bytes bytes;
  std::vector<UniqueFd> fds;
  bool refused = false;  // it was over a limit: no bytes, but the descriptors that came with it
};

struct SocketPair {
  UniqueFd first;
  UniqueFd second;
};

// A connected pair of SEQPACKET sockets, close-on-exec.
Result<SocketPair> make_seqpacket_pair();
// Connects to the SEQPACKET socket at `path`. Nobody there: Unreachable, with the path. Not accepted in 10 s
// (its backlog is full): Timeout.
Result<UniqueFd> connect_seqpacket(const std::string& path);

using Deadline = std::optional<std::chrono::steady_clock::time_point>;
inline Deadline after(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

// Sends one message with descriptors (borrowed). Blocks, at most until `deadline` (Timeout).
// A closed peer: Unreachable.
Result<> send_message(int socket, BytesView bytes, std::span<const int> fds = {}, Deadline deadline = {});
// Receives one message of at most `limit` bytes. A longer one, or one with more descriptors than
// kMaxMessageFds, comes back as `refused`: all its descriptors are the caller's, who decides where to close
// them, because close(2) of a hostile peer's file may block. The peer's orderly end: Unreachable.
Result<Message> receive_message(int socket, std::size_t limit, Deadline deadline = {});

// From now on nobody can send descriptors (SCM_RIGHTS) to this Unix socket, nor to connections that are made
// to it from now on, if it listens: EPERM. Without it a peer's files, whose close(2) may wait for the peer,
// are closed by whoever reads without asking for them, or closes the socket. False: the kernel cannot do that
// (before Linux 6.16), or it is no Unix socket. Other holders of the socket can undo it.
bool refuse_descriptors(int socket) noexcept;

// What a stream socket has for its reader.
struct Part {
  std::size_t size = 0;  // bytes; 0: the peer has ended
  std::vector<UniqueFd> fds;
};
// Receives the next bytes, and the descriptors that came with them: without a place for those the kernel
// closes them on the receiving thread. Does not block: nothing there is Timeout. A peer that is gone:
// Unreachable.
Result<Part> receive_part(int socket, std::span<std::uint8_t> into);

// Who connected: as it was at connect(2) (SO_PEERCRED), in our user namespace.
struct PeerCredentials {
  pid_t pid;
  uid_t uid;
  gid_t gid;
  std::vector<gid_t> groups;  // SO_PEERGROUPS
};
Result<PeerCredentials> peer_credentials(int socket);

}  // namespace vtpm
