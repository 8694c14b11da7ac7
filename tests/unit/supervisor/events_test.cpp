// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/events.h"

#include "tests/support/catch_result.h"

#include <boost/asio/io_context.hpp>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

constexpr Rules kRules{990, std::nullopt};

// What a subscription gives until it ends.
std::vector<std::string> all_of(asio::io_context& io, std::shared_ptr<Subscription> subscription) {
  std::vector<std::string> texts;
  const auto read = [](std::shared_ptr<Subscription> from,
                       std::vector<std::string>& into) -> asio::awaitable<void> {
    while (const auto text = co_await from->next())
      into.push_back(*text);
  };
  spawn(io.get_executor(), "listener", read(std::move(subscription), texts));
  io.run();
  return texts;
}

}  // namespace

TEST_CASE("events: each has an id that counts, its kind and its data") {
  asio::io_context io(1);
  EventBus bus(io.get_executor(), kRules);
  const auto listener = bus.subscribe({1, 1000, 100, {}});
  bus.publish("instance.create", 1000, "{}");
  bus.publish("instance.destroy", 1000, R"({"a":1})");
  bus.close();
  CHECK(all_of(io, listener) ==
        std::vector<std::string>{"id: 0\nevent: instance.create\ndata: {}\n\n",
                                 "id: 1\nevent: instance.destroy\ndata: {\"a\":1}\n\n"});
}

TEST_CASE("events: those of another user's instances are told to operators alone") {
  asio::io_context io(1);
  EventBus bus(io.get_executor(), kRules);
  const auto other = bus.subscribe({1, 1001, 100, {}});
  const auto root = bus.subscribe({1, 0, 0, {}});
  bus.publish("instance.create", 1000, "{}");
  bus.close();
  CHECK(all_of(io, other).empty());
  io.restart();
  CHECK(all_of(io, root).size() == 1);
}
