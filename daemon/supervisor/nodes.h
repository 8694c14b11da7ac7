// SPDX-License-Identifier: Apache-2.0
// The descriptors of an instance's nodes: which node is whose, and which have no users left.
#pragma once

#include "daemon/supervisor/keeper.h"
#include "daemon/supervisor/registry.h"

#include <functional>
#include <vector>

namespace vtpm::supervisor {

// The smallest number that none of them has; they are fewer than 256.
std::uint8_t free_number(const std::vector<Node>& nodes);
// What its descriptor is to an engine that serves it first, or after another one that has died (kChannel*).
std::uint8_t first_channel(const Node& node) noexcept;
std::uint8_t next_channel(const Node& node) noexcept;
// Removes the nodes that `of` says, ends those that are sockets, closes their descriptors, and returns their
// numbers.
std::vector<std::uint8_t> take_out(std::vector<Node>& nodes, const std::function<bool(const Node&)>& of);
// Gives each node the descriptor that was held under its number. Returns the numbers of the descriptors that
// are no node's; these are closed.
std::vector<std::uint8_t> put_back(std::vector<Node>& nodes, std::vector<HeldInstance::HeldNode> held,
                                   Disposal& disposal, uid_t owner);
// Whether a socket or a /dev/fuse has no other end any more: the peer has closed it, the mount is gone.
bool has_hung_up(int fd) noexcept;

}  // namespace vtpm::supervisor
