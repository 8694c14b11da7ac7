// SPDX-License-Identifier: Apache-2.0
// Endpoint: one device node as the engine's loop sees it, whatever its tenants reach it by: what it waits
// for, and what it does when that has come.
#pragma once

#include "daemon/engine/device.h"
#include "daemon/engine/kept_requests.h"

#include <poll.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace vtpm::engine {

// Of one engine: a container has two nodes, `vtpmctl attach` adds to them. Each is a descriptor, as is each
// connection of its socket nodes (all together): the jail's limit of descriptors has room for them.
inline constexpr std::size_t kMaxNodes = 16;
inline constexpr std::size_t kMaxConnections = 128;

// What the loop waits for: descriptors, and a time at the latest.
struct Wait {
  std::vector<pollfd> polled;
  std::optional<Device::Time> until;

  void no_longer_than(std::optional<Device::Time> time) {
    if (time) until = std::min(until.value_or(*time), *time);
  }
};

class Endpoint {
 public:
  // Has what waits at the instance's other nodes of that kind handled now: the last close of one may be
  // there.
  using Settle = std::function<void(const Endpoint&)>;

  virtual ~Endpoint() = default;

  virtual NodeKind kind() const noexcept = 0;
  // Nobody can come any more, and all who were there are gone. An error of another kind than that: its errno.
  virtual bool gone() const noexcept = 0;
  virtual int error() const noexcept = 0;

  // Adds its descriptors.
  virtual void wait_for(Wait& wait) = 0;
  // What poll(2) said of those descriptors, in their order. `all`: as much as has come, since several clients
  // compete; else what a client that is alone can have sent.
  virtual void handle(std::span<const pollfd> polled, bool all) = 0;
  // Handles what has come from those who are there. Between wait_for() and handle(), too.
  virtual void catch_up() = 0;
  // Looks at what has come, in a signal handler while a command runs. Whether to cancel that command.
  virtual bool glance(KeptRequests& kept) = 0;
};

}  // namespace vtpm::engine
