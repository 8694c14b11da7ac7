// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/connections.h"

namespace vtpm::engine {

Displacement displaced(std::span<const std::optional<Device::Time>> silent_since, Device::Time now) {
  std::optional<std::size_t> longest;
  for (std::size_t i = 0; i < silent_since.size(); ++i)
    if (silent_since[i] && (!longest || *silent_since[i] < *silent_since[*longest])) longest = i;
  if (!longest) return {};
  const Device::Time enough = *silent_since[*longest] + kSilence;
  if (enough > now) return {{}, enough};
  return {longest, {}};
}

void Connections::remove(const Connection& connection) {
  std::erase_if(all_, [&](const Entry& entry) { return entry.connection == &connection; });
}

Displacement Connections::choice(Device::Time now) const {
  std::vector<std::optional<Device::Time>> silent_since;
  for (const auto& [connection, kind] : all_)
    silent_since.push_back(kind == NodeKind::Managed ? connection->silent_since() : std::nullopt);
  return displaced(silent_since, now);
}

// One from which something has come in this moment is not silent: its node will see to it.
bool Connections::make_room(Device::Time now) {
  while (const auto which = choice(now).which) {
    Connection& connection = *all_[*which].connection;
    if (connection.stirs(now)) continue;
    connection.end();
    remove(connection);
    return true;
  }
  return false;
}

}  // namespace vtpm::engine
