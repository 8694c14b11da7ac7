// SPDX-License-Identifier: Apache-2.0
// Calls of the HTTP API whose answers are JSON.
#pragma once

#include "json/strict.h"
#include "tests/integration/supervisor/daemon.h"
#include "tests/support/catch_result.h"

namespace vtpm::test {

// The answer of a call that must succeed.
inline json::Value call(const Daemon& daemon, std::string_view method, std::string_view target,
                        std::string_view body = {}) {
  const auto answer = daemon.client().call(method, target, body);
  INFO(method << " " << target << ": " << (answer ? *answer : answer.error().context));
  REQUIRE(answer);
  auto value = json::parse(*answer, 1 << 24);
  REQUIRE(value);
  return *value;
}

// The status of a call that must not.
inline unsigned status_of(const Daemon& daemon, std::string_view method, std::string_view target,
                          std::string_view body = {}) {
  const auto answer = daemon.client().send(method, target, body);
  INFO(method << " " << target);
  REQUIRE(answer);
  return answer->status;
}

inline std::string create(const Daemon& daemon, const std::string& body = "{}") {
  return call(daemon, "POST", "/v1/instances", body)["id"].get<std::string>();
}

}  // namespace vtpm::test
