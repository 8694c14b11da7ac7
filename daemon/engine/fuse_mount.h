// SPDX-License-Identifier: Apache-2.0
// A device node of the `fuse` backend: the engine's end of its mount.
#pragma once

#include "daemon/engine/fuse_session.h"
#include "daemon/engine/kept_requests.h"
#include "daemon/engine/node.h"

#include <vtpm/os/unique_fd.h>

#include <array>

namespace vtpm::engine {

class FuseMount final : public FuseChannel {
 public:
  // The descriptor, a /dev/fuse, is made non-blocking by the caller: a request can vanish between poll and
  // read (its process is killed).
  FuseMount(UniqueFd fuse, Device& device, NodeKind kind, Node::Settle settle)
      : fuse_(std::move(fuse)), node_(device, kind, std::move(settle)), session_(node_, *this) {}

  int fd() const noexcept { return fuse_.get(); }
  // The mount is gone, and with it all that was open. An error of another kind: its errno.
  bool gone() const noexcept { return gone_; }
  int error() const noexcept { return error_; }
  const Node& node() const noexcept { return node_; }

  // Goes on with the session of an engine that has died, before anything else. Unsupported: the kernel
  // cannot.
  Result<> resume();

  // Handles one waiting request. False when there is none.
  bool handle_one();
  void handle(BytesView request) { session_.handle(request); }

  // Reads what waits into `kept`, in a signal handler while a command runs. Whether to cancel that command.
  bool glance(KeptRequests& kept);

  bool send(BytesView frame) override;

 private:
  void lose(int errno_value) noexcept;

  UniqueFd fuse_;
  bool gone_ = false;
  int error_ = 0;
  Node node_;
  FuseSession session_;
  alignas(8) std::array<std::uint8_t, kFuseBuffer> buffer_{};
};

}  // namespace vtpm::engine
