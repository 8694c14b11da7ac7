// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/http_message.h"

#include "json/strict.h"

#include <algorithm>
#include <charconv>

namespace vtpm::supervisor {
namespace {

Result<std::uint64_t> number(std::string_view name, std::string_view text) {
  std::uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || parsed != end || value > INT64_MAX)
    return Error(ErrorCode::Malformed, "query: " + std::string(name) + " must be a decimal number");
  return value;
}

}  // namespace

HttpReply problem(unsigned status, std::string_view name, std::string_view detail) {
  const json::Value body{{"type", "urn:vtpm:error:" + std::string(name)},
                         {"title", name},
                         {"status", status},
                         {"detail", detail}};
  return {status, "application/problem+json", json::dump(body)};
}

HttpReply problem(const Error& error) {
  return problem(static_cast<unsigned>(http_status(error.kind())), error_name(error.kind()), error.context);
}

std::string_view path_of(std::string_view target) noexcept {
  return target.substr(0, target.find('?'));
}

Result<std::map<std::string, std::uint64_t>> numbers_of_query(std::string_view target,
                                                              const std::vector<std::string>& allowed) {
  std::map<std::string, std::uint64_t> values;
  const auto mark = target.find('?');
  std::string_view rest = mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
  while (!rest.empty()) {
    const auto end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const auto equals = std::min(pair.find('='), pair.size());
    const std::string name(pair.substr(0, equals));
    if (std::find(allowed.begin(), allowed.end(), name) == allowed.end() || values.contains(name))
      return Error(ErrorCode::Malformed, "query: " + name + " is unknown or repeated");
    VTPM_TRY(values[name], number(name, pair.substr(std::min(equals + 1, pair.size()))));
  }
  return values;
}

}  // namespace vtpm::supervisor
