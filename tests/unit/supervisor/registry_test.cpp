// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/registry.h"

#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

constexpr Rules kRules{990, std::nullopt};

PeerCredentials peer(uid_t uid) {
  return {1, uid, 100, {}};
}

InstanceRow row(std::string id, uid_t owner, std::optional<std::string> name = {}) {
  return {std::move(id), std::move(name), owner, 0, {}, {}, {}};
}

void add(Registry& registry, InstanceRow r) {
  const std::string id = r.id;
  REQUIRE(registry.add(std::move(r), 100));
  registry.find(id)->state = Failed{{}, "test", true, nullptr};
}

}  // namespace

TEST_CASE("registry: an id, a name and the beginning of an id name an instance") {
  Registry registry;
  add(registry, row("0123456789abcdef", 1000, "web"));
  add(registry, row("01234fffffffffff", 1000));
  CHECK(registry.resolve(peer(1000), kRules, "0123456789abcdef").value() == "0123456789abcdef");
  CHECK(registry.resolve(peer(1000), kRules, "web").value() == "0123456789abcdef");
  CHECK(registry.resolve(peer(1000), kRules, "01234f").value() == "01234fffffffffff");
  CHECK(registry.resolve(peer(1000), kRules, "01234").error().kind() == ErrorCode::Conflict);
  CHECK(registry.resolve(peer(1000), kRules, "012").error().kind() == ErrorCode::NotFound);
  CHECK(registry.resolve(peer(1000), kRules, "").error().kind() == ErrorCode::NotFound);
}

TEST_CASE("registry: another user's instance does not exist for a peer") {
  Registry registry;
  add(registry, row("0123456789abcdef", 1000, "web"));
  const auto reference = GENERATE(as<std::string>(), "0123456789abcdef", "web", "01234");
  CHECK(registry.resolve(peer(1001), kRules, reference).error().kind() == ErrorCode::NotFound);
  CHECK(registry.resolve(peer(0), kRules, reference).has_value());
}

TEST_CASE("registry: names are each owner's own") {
  Registry registry;
  add(registry, row("aaaa000000000000", 1000, "web"));
  add(registry, row("bbbb000000000000", 1001, "web"));
  CHECK(registry.add(row("cccc000000000000", 1000, "web"), 100).error().kind() == ErrorCode::Conflict);
  CHECK(registry.resolve(peer(1001), kRules, "web").value() == "bbbb000000000000");
  CHECK(registry.resolve(peer(0), kRules, "web").error().kind() == ErrorCode::Conflict);
  add(registry, row("dddd000000000000", 0, "web"));
  CHECK(registry.resolve(peer(0), kRules, "web").value() == "dddd000000000000");
}

TEST_CASE("registry: a user's quota counts that user's instances") {
  Registry registry;
  add(registry, row("aaaa000000000000", 1000));
  CHECK(registry.add(row("bbbb000000000000", 1000), 1).error().kind() == ErrorCode::Exhausted);
  CHECK(registry.add(row("cccc000000000000", 1001), 1));
}

TEST_CASE("registry: an instance in the making is not shown") {
  Registry registry;
  REQUIRE(registry.add(row("aaaa000000000000", 1000), 10));
  CHECK(registry.resolve(peer(1000), kRules, "aaaa000000000000").error().kind() == ErrorCode::NotFound);
}

TEST_CASE("names: letters and digits first, then also dots, underscores and dashes") {
  const auto good = GENERATE(as<std::string>(), "a", "Web-1.2_x", "0", std::string(64, 'n'));
  CHECK(check_name(good));
}

TEST_CASE("names: anything else is refused") {
  const auto bad =
      GENERATE(as<std::string>(), "", "-a", ".a", "a/b", "a b", "a\n", "\xc3\xa4", std::string(65, 'n'));
  CHECK(check_name(bad).error().kind() == ErrorCode::Malformed);
}
