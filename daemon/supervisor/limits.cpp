// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/limits.h"

#include <algorithm>
#include <charconv>

namespace vtpm::supervisor {
namespace {

using ipc::kLimitFields;
using ipc::LimitField;

constexpr std::size_t kMaxText = 4096;

// Whether `value` gives less than `other`, or as much.
bool at_most(const LimitField& field, std::uint64_t value, std::uint64_t other) noexcept {
  if (field.zero_is_unlimited && other == 0) return true;
  return value <= other && !(field.zero_is_unlimited && value == 0);
}

Result<std::uint64_t> in_range(const LimitField& field, std::uint64_t value) {
  if (value >= field.least && value <= field.most) return value;
  return Error(ErrorCode::Malformed, "limit " + std::string(field.name) + ": must be " +
                                         std::to_string(field.least) + " to " + std::to_string(field.most));
}

Error no_such(std::string_view name) {
  std::string known;
  for (const LimitField& field : kLimitFields)
    known += (known.empty() ? "" : ", ") + std::string(field.name);
  return {ErrorCode::Malformed,
          "no limit is named '" + std::string(name.substr(0, 32)) + "'; there are " + known};
}

Result<LimitOrder> read_fields(json::Reader& reader) {
  LimitOrder order;
  for (std::size_t i = 0; i < kLimitFields.size(); ++i) {
    if (!reader.has(kLimitFields[i].name)) continue;
    VTPM_TRY(const std::uint64_t value, reader.integer(kLimitFields[i].name));
    VTPM_TRY(order.values[i], in_range(kLimitFields[i], value));
  }
  return order;
}

}  // namespace

EngineLimits default_limits() noexcept {
  EngineLimits limits;
  limits.commands_per_second = 10'000;
  limits.command_burst = 100'000;
  limits.busy_us_per_second = 500'000;
  limits.busy_burst_us = 30'000'000;
  limits.nv_bytes = 65'536;
  return limits;
}

bool LimitOrder::empty() const noexcept {
  return std::none_of(values.begin(), values.end(), [](const auto& value) { return value.has_value(); });
}

EngineLimits effective(const EngineLimits& defaults, const LimitOrder& order) noexcept {
  EngineLimits out = defaults;
  for (std::size_t i = 0; i < kLimitFields.size(); ++i) {
    const LimitField& field = kLimitFields[i];
    const auto& set = order.values[i];
    if (set && (order.by_operator || at_most(field, *set, defaults.*field.value))) out.*field.value = *set;
  }
  return out;
}

Result<> check_order(const EngineLimits& defaults, const LimitOrder& order) {
  if (order.by_operator) return {};
  for (std::size_t i = 0; i < kLimitFields.size(); ++i) {
    const LimitField& field = kLimitFields[i];
    if (!order.values[i] || at_most(field, *order.values[i], defaults.*field.value)) continue;
    return Error(ErrorCode::PermissionDenied, "limit " + std::string(field.name) +
                                                  ": only an operator may set more than the default, " +
                                                  std::to_string(defaults.*field.value));
  }
  return {};
}

Result<LimitOrder> merged(const EngineLimits& defaults, const LimitOrder& older, const LimitOrder& newer) {
  VTPM_TRY_VOID(check_order(older.by_operator ? effective(defaults, older) : defaults, newer));
  LimitOrder out = older;
  out.by_operator = older.by_operator || newer.by_operator;
  for (std::size_t i = 0; i < kLimitFields.size(); ++i)
    if (newer.values[i]) out.values[i] = newer.values[i];
  return out;
}

Result<> set_limit(EngineLimits& limits, std::string_view text) {
  const auto equals = text.find('=');
  if (equals == std::string_view::npos)
    return Error(ErrorCode::Malformed,
                 "a limit is NAME=VALUE, not '" + std::string(text.substr(0, 64)) + "'");
  const std::string_view name = text.substr(0, equals), digits = text.substr(equals + 1);
  const auto field = std::find_if(kLimitFields.begin(), kLimitFields.end(),
                                  [name](const LimitField& f) { return f.name == name; });
  if (field == kLimitFields.end()) return no_such(name);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size())
    return Error(ErrorCode::Malformed, "limit " + std::string(name) + ": must be a number");
  VTPM_TRY(limits.*field->value, in_range(*field, value));
  return {};
}

Result<LimitOrder> read_limits(const json::Item& item) {
  VTPM_TRY(json::Reader reader, item.object());
  for (const std::string& name : reader.names())
    if (std::none_of(kLimitFields.begin(), kLimitFields.end(),
                     [&](const LimitField& field) { return field.name == name; }))
      return no_such(name);
  return read_fields(reader);
}

json::Value to_json(const EngineLimits& limits) {
  json::Value out = json::Value::object();
  for (const LimitField& field : kLimitFields)
    out[std::string(field.name)] = limits.*field.value;
  return out;
}

std::string limits_text(const LimitOrder& order) {
  json::Value out{{"by_operator", order.by_operator}};
  for (std::size_t i = 0; i < kLimitFields.size(); ++i)
    if (order.values[i]) out[std::string(kLimitFields[i].name)] = *order.values[i];
  return json::dump(out);
}

Result<LimitOrder> parse_limits_text(std::string_view text) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxText));
  VTPM_TRY(json::Reader reader, json::Reader::of(value, "limits"));
  VTPM_TRY(const bool by_operator, reader.boolean("by_operator"));
  VTPM_TRY(LimitOrder order, read_fields(reader));
  VTPM_TRY_VOID(reader.done());
  order.by_operator = by_operator;
  return order;
}

}  // namespace vtpm::supervisor
