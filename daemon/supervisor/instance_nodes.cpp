// SPDX-License-Identifier: Apache-2.0
// The nodes of durable instances outlive their engine, and vtpmd: duplicates of their descriptors are in
// vtpmd and with the keeper; those of all sockets, too, since it is by its descriptor that a detached one is
// ended. Who holds one keeps its users waiting for an engine, so both let go of it as soon as no engine will
// come: its mount is gone, it was detached, its instance has ended or failed.
#include "daemon/supervisor/instances.h"
#include "daemon/supervisor/nodes.h"
#include "daemon/supervisor/supervision.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>

namespace vtpm::supervisor {

bool has_hung_up(int fd) noexcept {
  pollfd p{fd, 0, 0};
  return ::poll(&p, 1, 0) > 0;
}

std::uint8_t free_number(const std::vector<Node>& nodes) {
  std::uint8_t number = 0;
  const auto is_taken = [&](const Node& node) { return node.number == number; };
  while (std::any_of(nodes.begin(), nodes.end(), is_taken))
    ++number;
  return number;
}

std::uint8_t first_channel(const Node& node) noexcept {
  return node.backend == control::Backend::Socket ? ipc::kChannelSocket : ipc::kChannelFuse;
}

// A connection ends with its engine; the listening socket is as it was.
std::uint8_t next_channel(const Node& node) noexcept {
  return node.backend == control::Backend::Socket ? ipc::kChannelSocket : ipc::kChannelOrphaned;
}

std::vector<std::uint8_t> take_out(std::vector<Node>& nodes, const std::function<bool(const Node&)>& of) {
  std::vector<std::uint8_t> numbers;
  for (const Node& node : nodes) {
    if (!of(node)) continue;
    numbers.push_back(node.number);
    // Nobody unmounts a socket: this ends it for all who have it, the engine too.
    if (node.backend == control::Backend::Socket) ::shutdown(node.channel.get(), SHUT_RDWR);
  }
  std::erase_if(nodes, of);
  return numbers;
}

std::vector<std::uint8_t> put_back(std::vector<Node>& nodes, std::vector<HeldInstance::HeldNode> held,
                                   Disposal& disposal, uid_t owner) {
  std::vector<std::uint8_t> of_none;
  for (auto& one : held) {
    PeerFd channel(disposal, owner, std::move(one.channel));
    const auto node = std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) {
      return n.number == one.number && !n.gone && !n.channel;
    });
    if (node != nodes.end())
      node->channel = std::move(channel);
    else
      of_none.push_back(one.number);
  }
  return of_none;
}

// Not an error of who attached it: the instance runs, and the node is served.
asio::awaitable<void> Instances::keep_node(std::string id, std::uint8_t number) {
  auto state = running(id);
  if (!state) co_return;
  const auto node = std::find_if((*state)->nodes.begin(), (*state)->nodes.end(),
                                 [=](const Node& n) { return n.number == number; });
  if (node == (*state)->nodes.end()) co_return;
  const auto copy = std::make_shared<PeerFd>(node->channel.duplicate());
  const uid_t owner = registry_.find(id)->row.owner_uid;
  const auto hold = [this, id, owner, number, copy]() -> Result<> {
    if (!*copy) return Error(ErrorCode::Exhausted, "no descriptor is left for the keeper");
    return keeper_.hold_node(id, owner, number, copy->get());
  };
  const auto held = co_await run_on(workers_.keeper, hold);
  if (!held) log_line(LogLevel::Warning, held.error().context);
}

asio::awaitable<void> Instances::drop_nodes(std::string id, std::vector<std::uint8_t> numbers) {
  for (const std::uint8_t number : numbers) {
    const auto drop = [this, id, number] { return keeper_.drop_node(id, number); };
    const auto dropped = co_await run_on(workers_.keeper, drop);
    // A keeper that is gone holds nothing.
    if (!dropped && dropped.error().kind() != ErrorCode::Unreachable)
      log_line(LogLevel::Warning, "instance " + id + ": " + dropped.error().context);
  }
}

// They are not in its list any more. The keeper works in order: a later node may have the same number.
void Instances::forget_nodes(const std::string& id, std::vector<std::uint8_t> numbers) {
  spawn(executor_, "end of a node", drop_nodes(id, std::move(numbers)));
  spawn(executor_, "record of a node", record_quietly(id));
}

// Nobody tells vtpmd that a mount is gone; its descriptor does. Those that are here are asked.
void Instances::forget_dead_nodes(const std::string& id) {
  auto state = running(id);
  if (!state) return;
  auto dead = take_out((*state)->nodes,
                       [](const Node& node) { return node.channel && has_hung_up(node.channel.get()); });
  if (!dead.empty()) forget_nodes(id, std::move(dead));
}

}  // namespace vtpm::supervisor
