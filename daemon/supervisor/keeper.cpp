// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/keeper.h"

#include "daemon/supervisor/sockets.h"

#include <vtpm/os/encoding.h>

#include <sys/socket.h>
#include <unistd.h>

namespace vtpm::supervisor {
namespace {

using ipc::HeldKey;
using ipc::HeldKind;

// Ids are 16 hexadecimal digits, of our own making.
Result<std::uint64_t> number_of(const std::string& id) {
  const auto bytes = from_hex(id);
  if (!bytes || bytes->size() != sizeof(std::uint64_t))
    return Error(ErrorCode::Internal, "not an instance's id: " + id);
  return get_be<std::uint64_t>(*bytes);
}

std::string id_of(std::uint64_t number) {
  Bytes bytes;
  put_be(bytes, number);
  return to_hex(bytes);
}

void put_into(HeldInstance& instance, ipc::Held held) {
  switch (held.key.kind) {
    case HeldKind::Control:
      instance.control = std::move(held.fd);
      break;
    case HeldKind::Engine:
      instance.engine = std::move(held.fd);
      break;
    case HeldKind::Container:
      instance.container = std::move(held.fd);
      break;
    case HeldKind::Node:
      instance.nodes.push_back({held.key.number, std::move(held.fd)});
      break;
  }
}

Result<ipc::KeeperLink> start_another(const std::string& engine_path, const std::string& path) {
  const SocketSpec spec{path, SOCK_SEQPACKET, 0600, std::nullopt};
  VTPM_TRY(const UniqueFd listener, listen_at(spec));
  return ipc::KeeperLink::start(engine_path, listener, path, STDERR_FILENO);
}

}  // namespace

Result<std::unique_ptr<Keeper>> Keeper::start(std::string engine_path, const std::string& runtime_dir) {
  std::string path = runtime_dir + "/keeper.sock";
  auto link = ipc::KeeperLink::connect(path);
  // One that holds nothing may be ending in this moment.
  if (link) {
    const auto answers = link->recall();
    if (!answers && answers.error().kind() == ErrorCode::Unreachable)
      link = answers.error();
    else if (!answers)
      return answers.error().within(path + ": the keeper of an earlier vtpmd");
  }
  if (!link && link.error().kind() == ErrorCode::Unreachable) link = start_another(engine_path, path);
  if (!link) return link.error();
  return std::unique_ptr<Keeper>(new Keeper(std::move(engine_path), std::move(path), std::move(*link)));
}

Result<std::vector<HeldInstance>> Keeper::recall() {
  VTPM_TRY(std::vector<ipc::Held> all, link_.recall());
  std::vector<HeldInstance> instances;
  for (ipc::Held& held : all) {
    std::string id = id_of(held.key.instance);
    if (instances.empty() || instances.back().id != id) instances.emplace_back().id = std::move(id);
    put_into(instances.back(), std::move(held));
  }
  return instances;
}

// The engine's pidfd last: what has none is of a vtpmd that died before the keeper had all.
Result<> Keeper::hold(const HeldInstance& instance) {
  VTPM_TRY(const std::uint64_t number, number_of(instance.id));
  if (instance.container)
    VTPM_TRY_VOID(link_.hold({number, HeldKind::Container, 0}, instance.container.get()));
  for (const auto& node : instance.nodes)
    VTPM_TRY_VOID(link_.hold({number, HeldKind::Node, node.number}, node.channel.get()));
  if (instance.control) VTPM_TRY_VOID(link_.hold({number, HeldKind::Control, 0}, instance.control.get()));
  if (!instance.engine) return {};
  return link_.hold({number, HeldKind::Engine, 0}, instance.engine.get());
}

Result<> Keeper::release(const std::string& id) {
  VTPM_TRY(const std::uint64_t number, number_of(id));
  return link_.release(number);
}

Result<> Keeper::replace(const std::vector<HeldInstance>& instances) {
  VTPM_TRY(link_, start_another(engine_path_, path_));
  for (const HeldInstance& instance : instances)
    VTPM_TRY_VOID(hold(instance));
  return {};
}

Result<> Keeper::quit() {
  return link_.quit();
}

}  // namespace vtpm::supervisor
