// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/authorization.h"

#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

constexpr uid_t kDaemon = 990;
constexpr gid_t kGroup = 995;

PeerCredentials peer(uid_t uid, gid_t gid = 100, std::vector<gid_t> groups = {}) {
  return {4711, uid, gid, std::move(groups)};
}

}  // namespace

TEST_CASE("authorization: root, the daemon's user and the group's members are operators, others are not") {
  const Rules rules{kDaemon, kGroup};
  CHECK(is_operator(peer(0), rules));
  CHECK(is_operator(peer(kDaemon), rules));
  CHECK(is_operator(peer(1000, kGroup), rules));
  CHECK(is_operator(peer(1000, 100, {27, kGroup}), rules));
  CHECK_FALSE(is_operator(peer(1000, 100, {27, 0}), rules));
  CHECK_FALSE(is_operator(peer(1000, 0), rules));
}

TEST_CASE("authorization: without --group no group makes an operator") {
  const Rules rules{kDaemon, std::nullopt};
  CHECK_FALSE(is_operator(peer(1000, kGroup, {kGroup, 0}), rules));
  CHECK(is_operator(peer(0), rules));
}

TEST_CASE("authorization: a call for operators is refused to others by name") {
  const Rules rules{kDaemon, kGroup};
  CHECK(check_permission(peer(0), rules, Permission::Operator));
  const auto refused = check_permission(peer(1000), rules, Permission::Operator);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().kind() == ErrorCode::PermissionDenied);
  CHECK(refused.error().context.find("1000") != std::string::npos);
  const auto permission = GENERATE(Permission::Anyone, Permission::Owner);
  CHECK(check_permission(peer(1000), rules, permission));
}

TEST_CASE("authorization: an instance is its owner's and the operators', nobody else's") {
  const Rules rules{kDaemon, kGroup};
  CHECK(may_use(peer(1000), rules, 1000));
  CHECK(may_use(peer(0), rules, 1000));
  CHECK(may_use(peer(1001, kGroup), rules, 1000));
  CHECK_FALSE(may_use(peer(1001), rules, 1000));
  CHECK_FALSE(may_use(peer(1001), rules, 0));
}
