// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/keeper.h"

#include "daemon/supervisor/logging.h"
#include "daemon/supervisor/sockets.h"

#include <vtpm/os/encoding.h>

#include <fcntl.h>
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
    case HeldKind::Cgroup:
      instance.cgroup = std::move(held.fd);
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

std::string name_of(const ipc::KeeperLink& link, const std::string& path) {
  const auto pid = link.pid();
  return (pid ? "process " + std::to_string(*pid) : std::string("the process")) +
         " (vtpm-engine keeper) at " + path;
}

// Unreachable: there is none. One that holds nothing may be ending in this moment.
Result<ipc::KeeperLink> connect(const std::string& path) {
  VTPM_TRY(ipc::KeeperLink link, ipc::KeeperLink::connect(path));
  const std::string name = name_of(link, path);
  const auto answers = link.answers();
  if (!answers && answers.error().kind() == ErrorCode::Timeout)
    return Error(ErrorCode::Timeout,
                 name +
                     " has the TPMs of an earlier vtpmd and does not answer. Continue it (SIGCONT) if it was "
                     "stopped; SIGTERM ends it and, in order, its TPMs");
  if (!answers) return answers.error().within(path);
  return link;
}

}  // namespace

std::string Keeper::name() const {
  return name_of(link_, path_);
}

Result<std::unique_ptr<Keeper>> Keeper::start(std::string engine_path, const std::string& runtime_dir,
                                              Disposal& disposal) {
  std::string path = runtime_dir + "/keeper.sock";
  auto link = connect(path);
  if (!link && link.error().kind() == ErrorCode::Unreachable) link = start_another(engine_path, path);
  if (!link) return link.error();
  return std::unique_ptr<Keeper>(
      new Keeper(std::move(engine_path), std::move(path), std::move(*link), disposal));
}

Result<> Keeper::copy_node(const HeldKey& key, int channel, uid_t owner) {
  UniqueFd fd(::fcntl(channel, F_DUPFD_CLOEXEC, 3));
  if (!fd) return Error(ErrorCode::Exhausted, "no descriptor is left for a node");
  copies_.insert_or_assign(key, Copy{std::move(fd), owner});
  return {};
}

Result<> Keeper::drop(const HeldKey& key) {
  VTPM_TRY_VOID(link_.drop(key));
  dispose(key);
  return {};
}

Result<> Keeper::release(std::uint64_t instance) {
  VTPM_TRY_VOID(link_.release(instance));
  dispose_all(instance);
  return {};
}

void Keeper::dispose(const HeldKey& key) {
  dispose(copies_.extract(key));
}

void Keeper::dispose_all(std::uint64_t instance) {
  const auto first = [&] { return copies_.lower_bound({instance, HeldKind::Control, 0}); };
  for (auto one = first(); one != copies_.end() && one->first.instance == instance; one = first())
    dispose(copies_.extract(one));
}

// Root's, too, not on this thread: what is in a socket's queue may be of any client.
void Keeper::dispose(Copies::node_type copy) {
  if (copy.empty()) return;
  const uid_t owner = copy.mapped().owner == 0 ? kNoOwner : copy.mapped().owner;
  disposal_.drop(owner, Disposal::Kind::Passed, std::move(copy.mapped().fd));
}

// What was to be let go of in the meantime first: it would be held for ever, and an engine not end.
Result<> Keeper::let_go_of_owed() {
  for (; !owed_drops_.empty(); owed_drops_.erase(owed_drops_.begin()))
    VTPM_TRY_VOID(drop(*owed_drops_.begin()));
  for (; !owed_releases_.empty(); owed_releases_.erase(owed_releases_.begin()))
    VTPM_TRY_VOID(release(*owed_releases_.begin()));
  return {};
}

Result<> Keeper::ensure_connected() {
  if (link_.is_open()) return {};
  VTPM_TRY(link_, connect(path_));
  return let_go_of_owed();
}

// Twice, for it may have cut the connection off: only where it cannot be connected to either it is gone.
template <class Ask>
Result<> Keeper::insist(Ask ask) {
  VTPM_TRY_VOID(ensure_connected());
  const Result<> first = ask();
  if (first || first.error().kind() != ErrorCode::Unreachable) return first;
  VTPM_TRY_VOID(ensure_connected());
  return ask();
}

Result<std::vector<HeldInstance>> Keeper::recall() {
  VTPM_TRY(std::vector<ipc::Held> all, link_.recall());
  std::vector<HeldInstance> instances;
  for (ipc::Held& held : all) {
    std::string id = id_of(held.key.instance);
    if (instances.empty() || instances.back().id != id) instances.emplace_back().id = std::move(id);
    if (held.key.kind == HeldKind::Node) VTPM_TRY_VOID(copy_node(held.key, held.fd.get(), kNoOwner));
    put_into(instances.back(), std::move(held));
  }
  return instances;
}

void Keeper::set_owner(const std::string& id, uid_t owner) {
  for (auto& [key, copy] : copies_)
    if (id_of(key.instance) == id) copy.owner = owner;
}

// The engine's pidfd after what it cannot be taken back without: what has none is of a vtpmd that died before
// the keeper had all.
Result<> Keeper::hold(const HeldInstance& instance) {
  VTPM_TRY(const std::uint64_t number, number_of(instance.id));
  VTPM_TRY_VOID(ensure_connected());
  if (instance.container)
    VTPM_TRY_VOID(link_.hold({number, HeldKind::Container, 0}, instance.container.get()));
  if (instance.control) VTPM_TRY_VOID(link_.hold({number, HeldKind::Control, 0}, instance.control.get()));
  if (instance.engine) VTPM_TRY_VOID(link_.hold({number, HeldKind::Engine, 0}, instance.engine.get()));
  if (instance.cgroup) {
    const auto held = link_.hold({number, HeldKind::Cgroup, 0}, instance.cgroup.get());
    // Malformed: a keeper of a version that knows no such thing.
    const bool survives =
        held || held.error().kind() == ErrorCode::Exhausted || held.error().kind() == ErrorCode::Malformed;
    if (!survives) return held.error();
    if (!held)
      log_line(LogLevel::Warning,
               "instance " + instance.id +
                   " would fail if both this vtpmd and its engine died: " + held.error().context);
  }
  for (const auto& node : instance.nodes) {
    const auto held = hold_node(instance.id, instance.owner, node.number, node.channel.get());
    if (!held && held.error().kind() != ErrorCode::Exhausted) return held.error();
    if (!held) log_line(LogLevel::Warning, held.error().context);
  }
  return {};
}

// What was held under that name, and the copy of it, is let go of in the same order. Even where the keeper
// has no room the copy stays: vtpmd may close its other one on a thread that must not wait.
Result<> Keeper::hold_node(const std::string& id, uid_t owner, std::uint8_t number, int channel) {
  VTPM_TRY(const std::uint64_t instance, number_of(id));
  VTPM_TRY_VOID(ensure_connected());
  const HeldKey key{instance, HeldKind::Node, number};
  auto before = copies_.extract(key);
  const auto copied = copy_node(key, channel, owner);
  const auto held = copied ? link_.hold(key, channel) : copied;
  dispose(std::move(before));
  if (held) return {};
  return held.error().within("instance " + id + ": a node would not outlive both this vtpmd and its engine");
}

Result<> Keeper::drop_node(const std::string& id, std::uint8_t number) {
  VTPM_TRY(const std::uint64_t instance, number_of(id));
  const HeldKey key{instance, HeldKind::Node, number};
  const auto dropped = insist([&] { return drop(key); });
  if (!dropped) owed_drops_.insert(key);
  return dropped;
}

Result<> Keeper::release(const std::string& id) {
  VTPM_TRY(const std::uint64_t number, number_of(id));
  const auto released = insist([&] { return release(number); });
  if (!released) owed_releases_.insert(number);
  return released;
}

// A keeper that lives is not replaced: it has every engine's socket, and would have them for ever behind a
// path that is another's.
Result<> Keeper::restore(const std::vector<HeldInstance>& instances) {
  link_.close();
  const auto connected = ensure_connected();
  if (!connected && connected.error().kind() == ErrorCode::Unreachable) {
    // It holds nothing.
    for (const HeldKey& key : owed_drops_)
      dispose(key);
    for (const std::uint64_t instance : owed_releases_)
      dispose_all(instance);
    owed_releases_.clear();
    owed_drops_.clear();
    VTPM_TRY(link_, start_another(engine_path_, path_));
  } else if (!connected) {
    return connected.error();
  }
  for (const HeldInstance& instance : instances)
    VTPM_TRY_VOID(hold(instance));
  return {};
}

Result<> Keeper::quit() {
  VTPM_TRY_VOID(ensure_connected());
  return link_.quit();
}

}  // namespace vtpm::supervisor
