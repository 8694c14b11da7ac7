// SPDX-License-Identifier: Apache-2.0
// The messages of attach.sock: one JSON document per SEQPACKET message, descriptors beside it. FORMATS.md has
// the members. A hook and `vtpmctl attach` send requests; vtpmd answers each with one reply.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unix_socket.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace vtpm::control {

inline constexpr std::size_t kMaxAttachMessage = 65536;

// Which face of the TPM a device node shows.
enum class NodeKind { Managed, Raw };
std::string_view to_string(NodeKind kind) noexcept;  // "managed", "raw"
Result<NodeKind> node_kind_from(std::string_view text);

// What its clients reach a node by: a file on a FUSE mount, or a stream socket.
enum class Backend { Fuse, Socket };
std::string_view to_string(Backend backend) noexcept;  // "fuse", "socket"
Result<Backend> backend_from(std::string_view text);

// A container is being created: manufacture its instance and serve it on the given nodes.
// Descriptors, in this order: pidfd of the container's init, the OCI config.json (read-only), then one
// /dev/fuse fd per element of `nodes`; with `cgroup` the cgroup.procs of the container's cgroup, open for
// writing: the engine is to run in it.
struct LaunchRequest {
  std::string container;             // OCI container id
  std::optional<std::string> image;  // annotation dev.vtpm.image-digest, "sha256:..."
  std::optional<std::string> name;   // annotation dev.vtpm.name
  bool durable = false;              // annotation dev.vtpm.durable
  std::vector<NodeKind> nodes;       // 1 or 2
  bool cgroup = false;               // annotation dev.vtpm.cgroup=container
};

// Serve an existing instance on one more node. Descriptor: its /dev/fuse fd, or its listening socket.
struct AttachRequest {
  std::string instance;  // id or name
  NodeKind node;
  std::string path;  // where the node was made, in the peer's mount namespace; for people
  Backend backend = Backend::Fuse;
};

// The node at `path` was removed: forget it; of a socket: end it, and its connections. No descriptor.
struct DetachRequest {
  std::string instance;
  std::string path;
};

// Poststop, a hint: the container has ended. No descriptor. Unknown containers are not an error.
struct ReleaseRequest {
  std::string container;
};

using AttachMessage = std::variant<LaunchRequest, AttachRequest, DetachRequest, ReleaseRequest>;

std::string serialize(const AttachMessage& message);
// Strict; also checks that exactly the descriptors that the message needs came with it (`fd_count`).
Result<AttachMessage> parse_attach_message(BytesView bytes, std::size_t fd_count);

// vtpmd's answer: the instance's id, or an error.
struct AttachReply {
  Result<std::string> instance;
};
std::string serialize(const AttachReply& reply);
// The instance's id, or the error that vtpmd reports. No such document: Malformed.
Result<std::string> parse_attach_reply(BytesView bytes);

// Sends a request with its descriptors (borrowed) to the attach.sock in `runtime_dir` and waits for the
// reply, at most `deadline`. Nobody there: Unreachable.
Result<std::string> request(const std::string& runtime_dir, const AttachMessage& message,
                            std::span<const int> fds, Deadline deadline);

}  // namespace vtpm::control
