// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/connections.h"

#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <memory>

using namespace vtpm;
using namespace vtpm::engine;
using namespace std::chrono_literals;

namespace {

using Times = std::vector<std::optional<Device::Time>>;

constexpr Device::Time kNow{1000s};

// A connection that nobody serves, and its client.
struct Joined {
  Joined(Device& device, Connections& all, NodeKind kind = NodeKind::Managed) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    peer.reset(ends[1]);
    const auto space = device.open(kind);
    REQUIRE(space);
    connection = std::make_unique<Connection>(UniqueFd(ends[0]), device, *space);
    all.add(*connection, kind);
  }
  void send(BytesView bytes) const {
    REQUIRE(::send(peer.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }
  UniqueFd peer;
  std::unique_ptr<Connection> connection;
};

// A process has one. It is off.
Tpm& the_tpm() {
  static Tpm tpm;
  return tpm;
}

struct Scene {
  Device device{the_tpm()};
  Connections all;
};

Device::Time much_later() {
  return FairQueue::Clock::now() + 2 * kSilence;
}

const Bytes kCommand{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8};  // TPM2_GetRandom

}  // namespace

TEST_CASE(
    "connections: the one that has been silent longest gives its place, if it has been for long enough") {
  CHECK(displaced(Times{kNow - kSilence, kNow - kSilence - 1s, std::nullopt}, kNow).which == 1);
  CHECK(displaced(Times{kNow - kSilence}, kNow).which == 0);
  CHECK_FALSE(displaced(Times{kNow - kSilence + 1ns}, kNow).which);
  CHECK_FALSE(displaced(Times{std::nullopt, std::nullopt}, kNow).which);
  CHECK_FALSE(displaced(Times{}, kNow).which);
}

TEST_CASE("connections: while none has been silent for long enough it is told when one will have been") {
  const auto choice = displaced(Times{kNow - 1s, kNow - 3s, std::nullopt, kNow - 2s}, kNow);
  CHECK_FALSE(choice.which);
  CHECK(choice.later == kNow - 3s + kSilence);
  CHECK_FALSE(displaced(Times{std::nullopt}, kNow).later);
}

TEST_CASE("connections: room is made by the end of the oldest silent one, and of no other") {
  Scene scene;
  const Joined first(scene.device, scene.all), second(scene.device, scene.all),
      third(scene.device, scene.all);
  CHECK_FALSE(scene.all.make_room(FairQueue::Clock::now()));
  CHECK(scene.all.make_room(much_later()));
  CHECK(first.connection->over());
  CHECK_FALSE(second.connection->over());
  CHECK(scene.all.count() == 2);
  CHECK(scene.all.make_room(much_later()));
  CHECK(second.connection->over());
  CHECK_FALSE(third.connection->over());
}

TEST_CASE("connections: one whose command waits, or has come, is not silent") {
  Scene scene;
  const Joined waits(scene.device, scene.all), came(scene.device, scene.all), silent(scene.device, scene.all);
  waits.send(kCommand);
  waits.connection->receive();
  came.send(kCommand);
  CHECK(scene.all.make_room(much_later()));
  CHECK(silent.connection->over());
  CHECK_FALSE(scene.all.make_room(much_later() - kSilence));
  CHECK_FALSE(waits.connection->over());
  CHECK_FALSE(came.connection->over());
}

TEST_CASE("connections: one that has sent half a command and nothing more is silent in the end") {
  Scene scene;
  const Joined half(scene.device, scene.all);
  half.send(BytesView(kCommand).first(7));
  half.connection->receive();
  CHECK_FALSE(scene.all.make_room(FairQueue::Clock::now()));
  CHECK(scene.all.make_room(much_later()));
  CHECK(half.connection->over());
}

TEST_CASE("connections: the raw node's client keeps its place") {
  Scene scene;
  const Joined raw(scene.device, scene.all, NodeKind::Raw);
  CHECK_FALSE(scene.all.make_room(much_later()));
  CHECK_FALSE(scene.all.choice(much_later()).later);
  CHECK_FALSE(raw.connection->over());
}
