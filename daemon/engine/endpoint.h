// SPDX-License-Identifier: Apache-2.0
// Endpoint: one device node as the engine's loop sees it, whatever its tenants reach it by: what it waits
// for, and what it does when that has come.
#pragma once

#include "daemon/engine/device.h"
#include "daemon/engine/kept_requests.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
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

// What one look at the clients may cost a long command (long_command.h), all nodes together. The thread that
// looks is the one that works: who asks for ever, in many threads, would else stop the TPM for everybody.
// Whoever is not answered in this tick is in one of the next.
class GlanceBudget {
 public:
  static constexpr unsigned kRequests = 64;
  static constexpr std::chrono::microseconds kTime{400};  // a fifth of a tick

  explicit GlanceBudget(std::size_t nodes) noexcept
      : share_(std::max<unsigned>(1, kRequests / static_cast<unsigned>(std::max<std::size_t>(1, nodes)))) {}

  // Whether a node from which `taken` requests were taken may take another. The first it may always: it is
  // the kernel's oldest interrupt, if there is one, by which commands are cancelled. Async-signal-safe.
  bool take(unsigned taken) noexcept {
    if (taken >= share_ || (taken > 0 && Clock::now() >= end_)) return false;
    ++taken_;
    return true;
  }
  // By all nodes.
  unsigned taken() const noexcept { return taken_; }

 private:
  using Clock = std::chrono::steady_clock;

  const unsigned share_;
  const Clock::time_point end_ = Clock::now() + kTime;
  unsigned taken_ = 0;
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
  // Answers who asked how it stands while a command of his waited, after run_one().
  virtual void answer_polls() {}
  // Looks at what has come, in a signal handler while a command runs. Whether to cancel that command.
  virtual bool glance(KeptRequests& kept, GlanceBudget& budget) = 0;
};

// Has all of them glance, beginning with another each time that `first` is another. Whether to cancel the
// command. Async-signal-safe.
inline bool glance_at(std::span<const std::unique_ptr<Endpoint>> endpoints, std::size_t first,
                      KeptRequests& kept, GlanceBudget& budget) {
  bool cancel = false;
  for (std::size_t i = 0; i < endpoints.size(); ++i)
    cancel |= endpoints[(first + i) % endpoints.size()]->glance(kept, budget);
  return cancel;
}

}  // namespace vtpm::engine
