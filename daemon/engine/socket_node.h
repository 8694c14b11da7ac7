// SPDX-License-Identifier: Apache-2.0
// A device node of the `socket` backend: a listening stream socket and its connections.
//
// A connection is to it what an open file is to a device: a managed node gives each a space of its own; a raw
// one has one connection at a time, and keeps objects and sessions over connections. Who finds no room is not
// refused but waits in the listen queue (clients that connect anew for each command know no EBUSY) until
// there is some, or one of a managed node can be displaced.
#pragma once

#include "daemon/engine/connections.h"
#include "daemon/engine/endpoint.h"

#include <memory>

namespace vtpm::engine {

class SocketNode final : public Endpoint {
 public:
  // The listener is made non-blocking by the caller. `all`: the connections of all nodes, at most
  // kMaxConnections.
  SocketNode(UniqueFd listener, Device& device, NodeKind kind, Connections& all)
      : listener_(std::move(listener)), device_(device), kind_(kind), all_(all) {}
  ~SocketNode() override;
  SocketNode(const SocketNode&) = delete;
  SocketNode& operator=(const SocketNode&) = delete;

  NodeKind kind() const noexcept override { return kind_; }
  // It was shut down (shutdown(2)): its connections end, too.
  bool gone() const noexcept override { return gone_; }
  int error() const noexcept override { return error_; }
  void wait_for(Wait& wait) override;
  void handle(std::span<const pollfd> polled, bool all) override;
  void catch_up() override;
  bool glance(KeptRequests& kept, GlanceBudget& budget) override;

 private:
  bool has_room() const { return all_.count() < kMaxConnections && device_.has_room(kind_); }
  bool may_displace() const;
  bool accepts(Wait& wait) const;
  bool make_room();
  void remove_ended();
  void accept_one();
  void refused(int errno_value);

  UniqueFd listener_;
  Device& device_;
  const NodeKind kind_;
  Connections& all_;
  bool gone_ = false;
  int error_ = 0;
  std::optional<Device::Time> rests_until_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

}  // namespace vtpm::engine
