// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/limits.h"

#include "daemon/supervisor/options.h"
#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

Result<LimitOrder> order_of(const std::string& text) {
  VTPM_TRY(const json::Value value, json::parse(text, 4096));
  return read_limits(json::Item(value, "limits"));
}
LimitOrder operators_order(const std::string& text) {
  auto order = order_of(text).value();
  order.by_operator = true;
  return order;
}

}  // namespace

TEST_CASE("limits: the defaults are values that an engine takes") {
  CHECK(ipc::decode_limits(ipc::encode(default_limits())).value() == default_limits());
}

TEST_CASE("limits: what was not set is the default, whatever that is by then") {
  const auto order = operators_order(R"({"spaces":7,"commands_per_second":0})");
  EngineLimits defaults = default_limits();
  CHECK(effective(defaults, order).spaces == 7);
  CHECK(effective(defaults, order).commands_per_second == 0);
  CHECK(effective(defaults, order).nv_bytes == defaults.nv_bytes);
  defaults.nv_bytes = 9999;
  CHECK(effective(defaults, order).nv_bytes == 9999);
  CHECK(effective(defaults, {}) == defaults);
}

TEST_CASE("limits: who is not an operator may lower the defaults only") {
  const EngineLimits defaults = default_limits();
  for (const auto* text : {R"({"spaces":10})", R"({"commands_per_second":1,"command_burst":1})", "{}",
                           R"({"nv_bytes":100})", R"({"spaces":256})"}) {
    INFO(text);
    CHECK(check_order(defaults, order_of(text).value()));
  }
  for (const auto* text : {R"({"spaces":257})", R"({"commands_per_second":0})",
                           R"({"busy_us_per_second":500001})", R"({"nv_bytes":0})"}) {
    INFO(text);
    const auto refused = check_order(defaults, order_of(text).value());
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind() == ErrorCode::PermissionDenied);
    CHECK(check_order(defaults, operators_order(text)));
  }
  // Where the default is no limit, each value is a lower one.
  EngineLimits none = defaults;
  none.nv_bytes = 0;
  CHECK(check_order(none, order_of(R"({"nv_bytes":1048576})").value()));
  CHECK(check_order(none, order_of(R"({"nv_bytes":0})").value()));
}

TEST_CASE("limits: a user's stay below defaults that are lowered later, an operator's do not") {
  EngineLimits defaults = default_limits();
  defaults.spaces = 5;
  CHECK(effective(defaults, order_of(R"({"spaces":10})").value()).spaces == 5);
  CHECK(effective(defaults, operators_order(R"({"spaces":10})")).spaces == 10);
}

TEST_CASE("limits: later ones take the place of earlier ones, above an operator's for operators only") {
  const EngineLimits defaults = default_limits();
  const auto older = order_of(R"({"spaces":10,"nv_bytes":5000})").value();
  const auto raised = merged(defaults, older, order_of(R"({"spaces":20})").value());
  REQUIRE(raised);
  CHECK(effective(defaults, *raised).spaces == 20);
  CHECK(effective(defaults, *raised).nv_bytes == 5000);
  const auto operators = operators_order(R"({"spaces":10})");
  CHECK(merged(defaults, operators, order_of(R"({"spaces":9})").value()));
  CHECK(merged(defaults, operators, order_of(R"({"spaces":11})").value()).error().kind() ==
        ErrorCode::PermissionDenied);
  CHECK(effective(defaults, merged(defaults, operators, operators_order(R"({"spaces":1000})")).value())
            .spaces == 1000);
}

TEST_CASE("limits: unknown names, other types and values out of range are malformed") {
  for (const auto* text :
       {"[]", R"({"space":1})", R"({"spaces":0})", R"({"spaces":1025})", R"({"spaces":"1"})",
        R"({"spaces":-1})", R"({"command_burst":0})", R"({"nv_bytes":null})"}) {
    INFO(text);
    CHECK(order_of(text).error().kind() == ErrorCode::Malformed);
  }
}

TEST_CASE("limits: as an option they are NAME=VALUE") {
  EngineLimits limits = default_limits();
  REQUIRE(set_limit(limits, "nv_bytes=0"));
  CHECK(limits.nv_bytes == 0);
  for (const auto* text : {"", "spaces", "spaces=", "=1", "spaces=1x", "spaces= 1", "spaces=0", "spaces=-1",
                           "spaces=99999999999999999999", "other=1"}) {
    INFO(text);
    CHECK(set_limit(limits, text).error().kind() == ErrorCode::Malformed);
  }
}

TEST_CASE("limits: the database's text is read as it was written") {
  const auto order = operators_order(R"({"spaces":10,"nv_bytes":0})");
  const auto read = parse_limits_text(limits_text(order));
  REQUIRE(read);
  CHECK(read->values == order.values);
  CHECK(read->by_operator);
  CHECK_FALSE(parse_limits_text("{}"));
  CHECK_FALSE(parse_limits_text(R"({"by_operator":true,"other":1})"));
  CHECK_FALSE(parse_limits_text(R"({"by_operator":true,"spaces":0})"));
}

TEST_CASE("config: limits are those of every instance") {
  Options options;
  CHECK(options.limits == default_limits());
  REQUIRE(apply_config(R"({"limits":{"spaces":12,"busy_us_per_second":0}})", options));
  CHECK(options.limits.spaces == 12);
  CHECK(options.limits.busy_us_per_second == 0);
  CHECK(options.limits.nv_bytes == default_limits().nv_bytes);
  CHECK_FALSE(apply_config(R"({"limits":{"spaces":0}})", options));
  CHECK_FALSE(apply_config(R"({"limits":{"space":1}})", options));
}
