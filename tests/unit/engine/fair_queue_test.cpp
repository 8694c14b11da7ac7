// SPDX-License-Identifier: Apache-2.0
// Whose command runs next, with a clock of our own.
#include "daemon/engine/fair_queue.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>

using namespace vtpm;
using namespace vtpm::engine;
using namespace std::chrono_literals;
using space::SpaceId;

namespace {

constexpr SpaceId kA{1};
constexpr SpaceId kB{2};
constexpr SpaceId kC{3};

// A TPM and clients that give a command of `cost`, take its response, think and give the next.
class Simulation {
 public:
  struct Client {
    FairQueue::Duration cost;
    FairQueue::Duration think;
    bool reopens = false;    // a new space for each command
    FairQueue::Time next{};  // when it gives its next command
    bool waits = false;
    int done = 0;
    FairQueue::Time asked{};
    FairQueue::Duration longest{0};  // from the command to its response
    std::uint64_t space = 0;
  };

  explicit Simulation(std::vector<Client> c) : clients(std::move(c)) {
    for (auto& client : clients) {
      client.next = now;
      client.space = ++last_space;
    }
  }

  void run(FairQueue::Duration length) {
    const auto end = now + length;
    while (now < end) {
      for (std::size_t i = 0; i < clients.size(); ++i)
        if (!clients[i].waits && clients[i].next <= now) {
          clients[i].waits = true;
          clients[i].asked = now;
          queue.push(SpaceId{clients[i].space}, now);
        }
      const auto choice = queue.choose(now);
      if (choice.run) {
        auto& client = *std::find_if(clients.begin(), clients.end(),
                                     [&](const Client& c) { return SpaceId{c.space} == *choice.run; });
        const auto start = now;
        now += client.cost;
        busy += client.cost;
        queue.completed(*choice.run, start, now);
        client.waits = false;
        client.next = now + client.think;
        client.longest = std::max(client.longest, now - client.asked);
        ++client.done;
        if (!client.reopens) continue;
        queue.forget(*choice.run, now);
        client.space = ++last_space;
      } else {
        now = wake(choice.later);
      }
    }
  }

  // How long it has waited at most, and waits now.
  FairQueue::Duration longest(std::size_t i) const {
    return std::max(clients[i].longest, clients[i].waits ? now - clients[i].asked : 0ns);
  }

  FairQueue queue;
  FairQueue::Time now{1h};
  FairQueue::Duration busy{0};
  std::uint64_t last_space = 0;
  std::vector<Client> clients;

 private:
  FairQueue::Time wake(std::optional<FairQueue::Time> later) const {
    auto at = later.value_or(FairQueue::Time::max());
    for (const auto& client : clients)
      if (!client.waits) at = std::min(at, client.next);
    REQUIRE(at > now);
    return at;
  }
};

}  // namespace

TEST_CASE("fair queue: empty it has nothing to run and nothing to wait for") {
  FairQueue queue;
  const auto choice = queue.choose(FairQueue::Time{1h});
  CHECK_FALSE(choice.run);
  CHECK_FALSE(choice.later);
  CHECK_FALSE(queue.contended(FairQueue::Time{1h}));
}

TEST_CASE("fair queue: a client that is alone never waits, whatever it does") {
  Simulation alone({{100ms, 50us}});
  alone.run(10s);
  CHECK(alone.clients[0].longest == 100ms);
  CHECK_FALSE(alone.queue.contended(alone.now));
}

TEST_CASE("fair queue: long and short commands get half of the time each") {
  const auto think = GENERATE(10us, 50us, 300us);
  Simulation both({{100ms, 50us}, {50us, think}});
  both.run(20s);
  const auto& [longs, shorts] = std::tie(both.clients[0], both.clients[1]);
  // What the short ones are given they use as quickly as they can.
  CHECK(shorts.done > longs.done * 100);
  const auto share = both.now - FairQueue::Time{1h} - longs.done * longs.cost;
  CHECK(share > 8s);
  CHECK(share < 12s);
}

TEST_CASE("fair queue: two that do the same get the same, and the TPM does not rest") {
  Simulation both({{50us, 20us}, {50us, 20us}});
  both.run(1s);
  CHECK(std::abs(both.clients[0].done - both.clients[1].done) < 100);
  CHECK(both.busy > 900ms);
}

TEST_CASE("fair queue: a hundred clients all make progress") {
  std::vector<Simulation::Client> many(100, {200us, 20us});
  many[0].cost = 100ms;
  Simulation all(many);
  all.run(60s);
  for (const auto& client : all.clients)
    CHECK(client.done > 0);
  CHECK(all.clients[0].done >= 5);
  CHECK(all.clients[99].longest < 1s);
}

TEST_CASE("fair queue: an idle space saves up no credit") {
  FairQueue queue;
  FairQueue::Time now{1h};
  queue.push(kB, now);
  queue.completed(kB, now, now + 1ms);
  // A alone for ten seconds.
  for (int i = 0; i < 100; ++i) {
    queue.push(kA, now);
    queue.completed(kA, now, now + 100ms);
    now += 120ms;
  }
  // Then both: B gets about as much as A, not ten seconds first.
  int a = 0;
  for (int i = 0; i < 100; ++i) {
    if (a == 0) queue.push(kA, now);
    queue.push(kB, now);
    const auto choice = queue.choose(now);
    REQUIRE(choice.run);
    queue.completed(*choice.run, now, now + 1ms);
    now += 1ms;
    if (*choice.run == kB) continue;
    ++a;
    queue.push(kA, now);
  }
  CHECK(a > 30);
}

TEST_CASE("fair queue: who uses little is not waited for longer than the other is ahead") {
  Simulation both({{100ms, 50us}, {10us, 900us}});
  both.run(20s);
  // Half of the time at least.
  CHECK(both.clients[0].done * 100ms > 9s);
}

TEST_CASE("fair queue: a postponed command is tried again at its time or after another's") {
  FairQueue queue;
  const FairQueue::Time now{1h};
  queue.push(kA, now);
  queue.postpone(kA, now + 2s);
  auto choice = queue.choose(now);
  CHECK_FALSE(choice.run);
  CHECK(choice.later == now + 2s);
  CHECK(queue.choose(now + 2s).run == kA);
  queue.push(kB, now);
  CHECK(queue.choose(now).run == kB);
  queue.completed(kB, now, now + 1us);
  CHECK(queue.choose(now + 1us).run == kA);
}

TEST_CASE("fair queue: commands that are withdrawn and spaces that are closed are not chosen") {
  FairQueue queue;
  const FairQueue::Time now{1h};
  queue.push(kA, now);
  queue.push(kB, now);
  queue.push(kC, now);
  CHECK(queue.contended(now));
  queue.remove(kA);
  queue.forget(kB, now);
  CHECK(queue.choose(now).run == kC);
  queue.completed(kC, now, now);
  CHECK_FALSE(queue.choose(now).run);
}

TEST_CASE("fair queue: who opens a new space for each command gets no more than who keeps one") {
  const auto reopeners = GENERATE(1U, 2U, 3U);
  const auto run = [&](bool reopens) {
    std::vector<Simulation::Client> clients(reopeners, {100ms, 50us, reopens});
    clients.push_back({50us, 50us});
    Simulation all(clients);
    all.run(30s);
    for (const auto& client : all.clients)
      CHECK(client.done > 10);
    return all.clients.back().done;
  };
  const int beside_keepers = run(false);
  const int beside_reopeners = run(true);
  CHECK(beside_reopeners > beside_keepers * 9 / 10);
  // And it is not punished: those that open anew share what one would have.
  CHECK(beside_reopeners < 30s / 100us);
}

TEST_CASE("fair queue: what a closed space had too much is bounded, and forgiven by time") {
  FairQueue queue;
  FairQueue::Time now{1h};
  const auto run = [&](SpaceId space, FairQueue::Duration cost) {
    queue.push(space, now);
    queue.completed(space, now, now + cost);
    now += cost;
  };
  // B works all the time: it has a command whenever A has one.
  const auto cost = GENERATE(FairQueue::Duration(200ms), FairQueue::Duration(60s));
  run(kB, 1ms);
  queue.push(kB, now);
  run(kA, cost);
  queue.forget(kA, now);
  const auto debt = std::min<FairQueue::Duration>(cost, FairQueue::kMostDebt);
  const auto waits = [&] {
    queue.push(kC, now);
    FairQueue::Duration waited{0};
    while (queue.choose(now).run == kB) {
      run(kB, 1ms);
      queue.push(kB, now);
      waited += 1ms;
    }
    queue.remove(kC);
    queue.forget(kC, now);
    return waited;
  };
  SECTION("a newcomer waits as long as it was ahead, once") {
    CHECK(waits() >= debt - 2ms);
    CHECK(waits() <= 2ms);
  }
  SECTION("later it waits less") {
    now += 100ms;
    const auto waited = waits();
    CHECK(waited >= debt - 110ms);
    CHECK(waited <= debt - 90ms);
  }
  SECTION("and then not at all") {
    now += FairQueue::kMostDebt;
    CHECK(waits() <= 2ms);
  }
  SECTION("nor where nobody else is active") {
    queue.remove(kB);
    now += 20ms;
    queue.push(kC, now);
    CHECK(queue.choose(now).run == kC);
  }
  SECTION("nor later those who come when somebody is") {
    queue.remove(kB);
    queue.forget(kB, now);
    now += 20ms;
    run(kB, 1ms);
    queue.push(kB, now);
    CHECK(waits() <= 2ms);
  }
  SECTION("another that is closed takes nothing from it") {
    run(SpaceId{9}, 10us);
    queue.forget(SpaceId{9}, now);
    CHECK(waits() >= debt - 3ms);
  }
}

TEST_CASE(
    "fair queue: many that pause and together want more than there is do not keep out who comes later") {
  Simulation all(std::vector<Simulation::Client>(16, {25ms, 150ms}));
  all.clients.push_back({50us, 3s});
  all.clients.back().next += 1s;
  all.clients.back().space = ++all.last_space;
  SECTION("alone") {}
  SECTION("with one that opens anew") {
    all.clients.push_back({1s, 100us, true, all.now, false, 0, {}, {}, 100});
  }
  all.run(120s);
  for (std::size_t i = 0; i < 17; ++i) {
    INFO(i);
    CHECK(all.longest(i) < 4s);
  }
  CHECK(all.clients[16].done > 20);
}

TEST_CASE("fair queue: who has used the TPM alone for long does not pay for it when others come") {
  Simulation all({{100ms, 50us}});
  all.run(20s);
  all.now += 1s;
  for (int i = 0; i < 3; ++i)
    all.clients.push_back({25ms, 1ms, false, all.now, false, 0, {}, {}, ++all.last_space});
  all.clients[0].next = all.now + 100ms;
  all.clients[0].longest = {};
  all.run(10s);
  CHECK(all.longest(0) < 1s);
  // Nor who was there before it, and comes back.
  Simulation old({{1ms, 50us}, {100ms, 50us}});
  old.clients[1].next += 1s;
  old.clients[0].think = 30s;
  old.run(25s);
  old.clients[1].next = old.now + 50ms;
  old.clients[0] = {25ms, 1ms, false, old.now, false, 0, {}, {}, old.clients[0].space};
  old.clients[1].longest = {};
  old.run(10s);
  CHECK(old.longest(1) < 1s);
}

TEST_CASE("fair queue: of those that have used the same, who came first is served first") {
  FairQueue queue;
  const FairQueue::Time now{1h};
  queue.push(kC, now);
  queue.push(kA, now);
  queue.push(kB, now);
  CHECK(queue.choose(now).run == kC);
  queue.remove(kC);
  CHECK(queue.choose(now).run == kA);
}

TEST_CASE("fair queue: a newcomer pays a debt of others once for each that is active") {
  std::vector<Simulation::Client> clients(8, {20ms, 100us});
  clients.push_back({1s, 100us, true});
  clients.push_back({50us, 3s, true});
  Simulation all(clients);
  all.run(120s);
  CHECK(all.longest(9) < 9s);
  CHECK(all.clients[8].done < 16);  // its share is a tenth, rounded up to whole commands
}
