// SPDX-License-Identifier: Apache-2.0
// What instances' tenants may use: vtpmd's defaults, and what was set for one instance besides.
#pragma once

#include "daemon/ipc/engine_limits.h"
#include "json/strict.h"

#include <array>
#include <optional>

namespace vtpm::supervisor {

using ipc::EngineLimits;

// Defaults that protect neighbours and that an honest tenant does not meet (vtpmd(8) says why these).
EngineLimits default_limits() noexcept;

// The limits that somebody has set for one instance, in the order of ipc::kLimitFields; the others are the
// defaults, whatever these are at the time.
struct LimitOrder {
  std::array<std::optional<std::uint64_t>, EngineLimits::kFields> values = {};
  bool by_operator = false;  // who may also set more than the defaults

  bool empty() const noexcept;
};

// The defaults with what was set in their place. What was not set by an operator only lowers them, also when
// they have become lower since.
EngineLimits effective(const EngineLimits& defaults, const LimitOrder& order) noexcept;
// More than the defaults, and not by an operator: PermissionDenied, naming the limit.
Result<> check_order(const EngineLimits& defaults, const LimitOrder& order);
// What is set in `newer` takes the place of what is set in `older`. Something that an operator has set may
// only be lowered by others: PermissionDenied.
Result<LimitOrder> merged(const EngineLimits& defaults, const LimitOrder& older, const LimitOrder& newer);

// "NAME=VALUE" of an option. Malformed: no such limit, no number, out of its range.
Result<> set_limit(EngineLimits& limits, std::string_view text);
// An object whose members are limits by their names; errors likewise.
Result<LimitOrder> read_limits(const json::Item& item);
json::Value to_json(const EngineLimits& limits);

// The column instance.limits (FORMATS.md: "The supervisor's database"). Malformed: not what limits_text()
// writes.
std::string limits_text(const LimitOrder& order);
Result<LimitOrder> parse_limits_text(std::string_view text);

}  // namespace vtpm::supervisor
