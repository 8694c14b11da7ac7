// SPDX-License-Identifier: Apache-2.0
// Hostile clients of the resource manager on a real libtpms: the input is a program of opens, closes, pauses
// and commands, whose handles and sessions are right, wrong, another's or damaged. The TPM is durable, and
// its disk fails for a while: then what it cannot store is answered by an error and undone. What must hold
// after each step: the sessions that spaces list are disjoint and are the TPM's; a space lists its objects
// and each still has the Name that it was made with; and when all have closed nothing is left but sessions
// saved by clients.
#include "tests/support/local_tpm.h"
#include "tests/support/tpm_wire.h"

#include <vtpm/space/resource_manager.h>

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>

using namespace vtpm;
namespace wire = test::wire;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "invariant: %s\n", what);
  std::abort();
}

using Handles = std::vector<std::uint32_t>;

struct Client {
  space::SpaceId id;
  space::Kind kind;
  std::map<std::uint32_t, Bytes> names;  // what ReadPublic said when the object was made
};

// A disk in memory, which fails while it is told to.
class Disk final : public engine::SlotFile {
 public:
  static inline bool fails = false;

  Result<Bytes> read_at(std::uint64_t offset, std::size_t most) override {
    const auto from = BytesView(bytes_).subspan(std::min<std::size_t>(offset, bytes_.size()));
    const auto part = from.first(std::min(most, from.size()));
    return Bytes(part.begin(), part.end());
  }
  Result<std::size_t> write_at(std::uint64_t offset, BytesView bytes) override {
    if (fails) return Error(ErrorCode::Exhausted, "the disk is full");
    bytes_.resize(std::max<std::size_t>(bytes_.size(), offset + bytes.size()));
    std::copy(bytes.begin(), bytes.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    return bytes.size();
  }
  Result<> sync() override { return {}; }

 private:
  Bytes bytes_;
};

test::LocalTpm& durable_tpm() {
  static test::LocalTpm& tpm = []() -> test::LocalTpm& {
    test::LocalTpm::get().make_durable(std::make_unique<Disk>(), std::make_unique<Disk>());
    return test::LocalTpm::get();
  }();
  return tpm;
}

class Program {
 public:
  Program(const std::uint8_t* data, std::size_t size) : input_(data, size), manager_(tpm_, kLimits) {
    Disk::fails = false;
    tpm_.power_cycle();
  }

  void run() {
    for (int steps = 0; input_.remaining_bytes() > 0 && steps < 200; ++steps) {
      step();
      check_sessions();
    }
    for (auto& client : clients_)
      check_objects(client);
    finish();
  }

 private:
  static constexpr space::Limits kLimits{8, 6, 20};

  std::uint8_t byte() { return input_.ConsumeIntegral<std::uint8_t>(); }
  Client* some_client() { return clients_.empty() ? nullptr : &clients_[byte() % clients_.size()]; }

  void step() {
    const std::uint8_t what = byte();
    if (what < 16 || clients_.empty()) return open();
    if (what < 24) return close(byte() % clients_.size());
    if (what < 32) return pause();
    if (what < 36) return check_objects(*some_client());
    if (what < 40) return static_cast<void>(Disk::fails = !Disk::fails);
    command(*some_client());
  }

  void open() {
    const space::Kind kinds[] = {space::Kind::Managed, space::Kind::Managed, space::Kind::Managed,
                                 space::Kind::Raw, space::Kind::Supervisor};
    const space::Kind kind = kinds[byte() % 5];
    if (clients_.size() >= 12) return;
    const auto id = manager_.open(kind);
    if (!id) return;
    Client client{*id, kind, {}};
    if (kind == space::Kind::Raw) client.names = std::move(raw_names_);
    clients_.push_back(std::move(client));
  }

  void close(std::size_t index) {
    if (clients_[index].kind == space::Kind::Raw) raw_names_ = std::move(clients_[index].names);
    manager_.close(clients_[index].id);
    clients_.erase(clients_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  void pause() {
    now_ += std::chrono::milliseconds(500);
    if (byte() != 0) return;
    Disk::fails = false;
    tpm_.power_cycle();
    manager_.power_cycled();
    raw_names_.clear();
    for (auto& client : clients_)
      client.names.clear();
  }

  std::uint32_t handle() {
    const std::uint8_t kind = byte(), index = byte();
    switch (kind % 8) {
      case 0:
      case 1:
        return 0x80000000U + index % 8;
      case 2:
        return 0x02000000U + index % 66;
      case 3:
        return 0x03000000U + index % 66;
      case 4:
        return wire::kOwner;
      case 5:
        return wire::kNull;
      case 6:
        return 0x81000000U + index % 2;
      default:
        return input_.ConsumeIntegral<std::uint32_t>();
    }
  }

  Bytes rest() {
    const auto bytes = input_.ConsumeBytes<std::uint8_t>(byte() % 64);
    return {bytes.begin(), bytes.end()};
  }

  // A command that is mostly right.
  Bytes plausible() {
    const std::uint8_t a = byte();
    switch (a % 20) {
      case 0:
        return wire::create_primary(a < 128 ? wire::kOwner : wire::kNull,
                                    std::string(1, char('a' + byte() % 16)));
      case 1:
        return wire::read_public(handle());
      case 2:
        return wire::hash_sequence_start();
      case 3:
        return wire::sequence_update(handle(), "x");
      case 4:
        return wire::sequence_complete(handle(), "x");
      case 5:
        return wire::flush(handle());
      case 6:
        return wire::context_save(handle());
      case 7:
      case 8:
        return contexts_.empty() ? wire::get_random()
                                 : wire::context_load(contexts_[byte() % contexts_.size()]);
      case 9:
      case 10:
        return wire::start_session(wire::SessionType{static_cast<std::uint8_t>(byte() % 2)});
      case 11:
        return wire::policy_command_code(handle(), 0x17b);
      case 12:
        return wire::policy_get_digest(handle());
      case 13:
        return wire::get_capability(a < 128 ? 1 : 6, a < 128 ? handle() : 0x200U + byte() % 16, byte());
      case 14:
        return wire::evict_control(handle(), 0x81000000U + byte() % 2);
      case 15:  // sessions of any kind, audit and continueSession as they come
        return wire::command(0x17b, {}, {{handle(), byte()}}, Bytes{0, 8});
      case 16:  // PolicySecret: an authorized handle and a session among the handles
        return wire::command(0x151, {handle(), handle()}, {{handle(), byte()}}, Bytes(10, 0));
      case 17:  // Clear, HierarchyControl (ownerEnable off and on)
        if (byte() % 4 == 0) return wire::command(0x126, {wire::kLockout}, {{}}, {});
        return wire::command(
            0x121, {wire::kPlatform}, {{}},
            wire::join({wire::u32s(wire::kOwner), Bytes{static_cast<std::uint8_t>(byte() & 1)}}));
      case 18:  // StartAuthSession with keys, and an audit session
        return wire::start_session(wire::SessionType::Hmac, handle(), handle());
      default:  // any command at all
        return wire::command(0x11fU + byte() % 0x80, {handle(), handle()}, {{handle(), byte()}}, rest());
    }
  }

  Bytes damaged(Bytes command) {
    const std::uint8_t how = byte();
    if (how >= 32) return command;
    if (how < 8) command.resize(tpm::kHeaderSize + byte() % (command.size() - tpm::kHeaderSize + 1));
    if (how >= 8 && how < 24 && command.size() > tpm::kHeaderSize)
      command[tpm::kHeaderSize + byte() % (command.size() - tpm::kHeaderSize)] = byte();
    if (how >= 24) command[1] ^= 3;  // the other tag
    command[2] = command[3] = 0;
    command[4] = static_cast<std::uint8_t>(command.size() >> 8);
    command[5] = static_cast<std::uint8_t>(command.size());
    return command;
  }

  std::optional<Bytes> execute(const Client& client, BytesView command) {
    auto outcome = manager_.execute(client.id, tpm::Locality::tenant(), command, now_);
    require(outcome.has_value(), "no command makes the TPM fail");
    if (const auto* response = std::get_if<Bytes>(&*outcome)) {
      require(tpm::parse_response(*response).has_value(), "an answer is a well-formed response");
      return *response;
    }
    if (byte() % 2 == 0) manager_.withdraw(client.id);
    return std::nullopt;
  }

  void command(Client& client) {
    const Bytes bytes = damaged(plausible());
    if (tpm::check_command(bytes).code != tpm::ResponseCode::Success) return;
    const auto response = execute(client, bytes);
    if (!response || wire::code_of(*response) != 0) return;
    if (bytes[9] == 0x62 && contexts_.size() < 32) contexts_.push_back(wire::body_of(*response));
    const Handles now = list(client, 0x80000000);
    std::erase_if(client.names,
                  [&](const auto& entry) { return !std::ranges::binary_search(now, entry.first); });
    if (bytes[9] == 0x26 || bytes[9] == 0x21) return drop_flushed();
    for (const std::uint32_t handle : now)
      if (!client.names.contains(handle)) client.names[handle] = name(client, handle);
  }

  // Clear and HierarchyControl take objects from everybody.
  void drop_flushed() {
    for (auto& client : clients_) {
      const Handles now = list(client, 0x80000000);
      std::erase_if(client.names,
                    [&](const auto& entry) { return !std::ranges::binary_search(now, entry.first); });
    }
    // The raw space has no opener that could look.
    raw_names_.clear();
  }

  Bytes name(const Client& client, std::uint32_t handle) {
    return *execute(client, wire::read_public(handle));
  }

  Handles list(const Client& client, std::uint32_t first) {
    const auto response = execute(client, wire::get_capability(1, first, 254));
    Handles found;
    for (std::size_t at = 19; at < response->size(); at += 4)
      found.push_back(get_be<std::uint32_t>(*response, at));
    return found;
  }

  void check_objects(Client& client) {
    const Handles now = list(client, 0x80000000);
    require(client.kind != space::Kind::Managed || now.size() <= kLimits.objects_per_space, "object limit");
    require(tpm_.handles(0x80000000).size() <= 3, "three slots");
    for (const auto& [handle, name_then] : client.names) {
      require(std::ranges::binary_search(now, handle), "an object stays listed");
      require(name(client, handle) == name_then, "an object stays what it was");
    }
  }

  void check_sessions() {
    std::set<std::uint32_t> loaded, saved;
    for (const auto& client : clients_) {
      for (const std::uint32_t session : list(client, 0x02000000))
        require(loaded.insert(session & 0xffffff).second, "a session has one owner");
      for (const std::uint32_t session : list(client, 0x03000000))
        saved.insert(session & 0xffffff);
    }
    std::set<std::uint32_t> active;
    for (const std::uint32_t first : {0x02000000U, 0x03000000U})
      for (const std::uint32_t session : tpm_.handles(first))
        active.insert(session & 0xffffff);
    for (const std::uint32_t session : loaded)
      require(active.contains(session) && !saved.contains(session), "a listed session is active");
    for (const std::uint32_t session : saved)
      require(active.contains(session), "a saved session is active");
  }

  void finish() {
    while (!clients_.empty())
      close(clients_.size() - 1);
    const Client raw{manager_.open(space::Kind::Raw).value(), space::Kind::Raw, {}};
    for (const std::uint32_t first : {0x80000000U, 0x02000000U})
      for (const std::uint32_t handle : list(raw, first))
        require(wire::code_of(*execute(raw, wire::flush(handle))) == 0, "the raw client flushes what it has");
    require(tpm_.handles(0x80000000).empty(), "no object is left behind");
    require(tpm_.handles(0x02000000).empty(), "no session is left loaded");
    const Handles seen = list(raw, 0x03000000), saved = tpm_.handles(0x03000000);
    require(seen == saved, "what is left was saved by clients");
    manager_.close(raw.id);
  }

  FuzzedDataProvider input_;
  test::LocalTpm& tpm_ = durable_tpm();
  space::ResourceManager manager_;
  space::Clock::time_point now_{std::chrono::hours(1)};
  std::vector<Client> clients_;
  std::map<std::uint32_t, Bytes> raw_names_;
  std::vector<Bytes> contexts_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Program(data, size).run();
  return 0;
}
