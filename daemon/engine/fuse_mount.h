// SPDX-License-Identifier: Apache-2.0
// A device node of the `fuse` backend: the engine's end of its mount.
#pragma once

#include "daemon/engine/endpoint.h"
#include "daemon/engine/fuse_session.h"
#include "daemon/engine/node.h"

#include <vtpm/os/unique_fd.h>

#include <array>

namespace vtpm::engine {

class FuseMount final : public Endpoint, private FuseChannel {
 public:
  // The descriptor, a /dev/fuse, is made non-blocking by the caller: a request can vanish between poll and
  // read (its process is killed).
  FuseMount(UniqueFd fuse, Device& device, NodeKind kind, Settle settle)
      : fuse_(std::move(fuse)),
        node_(device, kind, [this, settle = std::move(settle)] { settle(*this); }),
        session_(node_, *this) {}

  // Goes on with the session of an engine that has died, before anything else. Unsupported: the kernel
  // cannot.
  Result<> resume();

  // Handles a request that glance() has kept.
  void handle_kept(BytesView request) { session_.handle(request); }

  NodeKind kind() const noexcept override { return node_.kind(); }
  bool gone() const noexcept override { return gone_; }
  int error() const noexcept override { return error_; }
  void wait_for(Wait& wait) override { wait.polled.push_back({fuse_.get(), POLLIN, 0}); }
  void handle(std::span<const pollfd> polled, bool all) override;
  void catch_up() override { read_requests(true); }
  void answer_polls() override { session_.answer_polls(); }
  bool glance(KeptRequests& kept, GlanceBudget& budget) override;

 private:
  bool send(BytesView frame) override;
  // Handles one waiting request. False when there is none.
  bool handle_one();
  void read_requests(bool all);
  void lose(int errno_value) noexcept;

  UniqueFd fuse_;
  bool gone_ = false;
  int error_ = 0;
  Node node_;
  FuseSession session_;
  alignas(8) std::array<std::uint8_t, kFuseBuffer> buffer_{};
};

}  // namespace vtpm::engine
