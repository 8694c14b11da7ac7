// SPDX-License-Identifier: Apache-2.0
// All connections of an engine's socket nodes. Their number is limited, and who waits for a place gets that
// of the one that has been silent longest: else whoever opens as many as there may be would keep all others
// out for ever.
#pragma once

#include "daemon/engine/connection.h"

#include <chrono>
#include <optional>
#include <span>
#include <vector>

namespace vtpm::engine {

// A connection may lose its place when nothing has come from it or gone to it for as long. Clients think
// between two commands: a crowd that comes all at once costs nobody his sessions.
inline constexpr std::chrono::seconds kSilence{10};

// Which of some connections gives its place to a newcomer.
struct Displacement {
  std::optional<std::size_t> which;   // the one that has been silent longest, if long enough
  std::optional<Device::Time> later;  // or when that will be so, if it stays silent
};
// `silent_since`: of each; nothing where it is not silent.
Displacement displaced(std::span<const std::optional<Device::Time>> silent_since, Device::Time now);

// They are borrowed, and removed before they are destroyed.
class Connections {
 public:
  // Of a raw node, which is one client's at a time, none is displaced.
  void add(Connection& connection, NodeKind kind) { all_.push_back({&connection, kind}); }
  void remove(const Connection& connection);
  // A displaced one does not count any more.
  std::size_t count() const noexcept { return all_.size(); }
  // Whether one could give its place now.
  Displacement choice(Device::Time now) const;
  // Ends that one and removes it. False: there is none.
  bool make_room(Device::Time now);

 private:
  struct Entry {
    Connection* connection;
    NodeKind kind;
  };
  std::vector<Entry> all_;
};

}  // namespace vtpm::engine
