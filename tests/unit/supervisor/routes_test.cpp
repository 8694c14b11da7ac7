// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/routes.h"

#include "json/strict.h"
#include "tests/support/catch_result.h"

#include <vtpm/os/file.h>

#include <algorithm>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

json::Value openapi() {
  const auto text = read_file(VTPM_SOURCE_DIR "/daemon/supervisor/openapi.json", 1 << 20);
  REQUIRE(text);
  auto document = json::parse(as_text(*text), 1 << 20);
  REQUIRE(document);
  return *document;
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return static_cast<char>(c | 0x20); });
  return out;
}

}  // namespace

TEST_CASE("routes: every row is found by its own path, with its id") {
  for (const Route& route : routes()) {
    std::string path(route.pattern);
    const auto at = path.find("{id}");
    if (at != std::string::npos) path.replace(at, 4, "abc");
    const Match found = match(route.method, path);
    INFO(route.method << " " << path);
    CHECK(found.route == &route);
    CHECK(found.id == (at != std::string::npos ? "abc" : ""));
  }
}

TEST_CASE("routes: unknown paths match nothing") {
  const auto path =
      GENERATE(as<std::string>(), "", "/", "*", "/v1", "/v1/", "/v1/instances/", "/v2/instances",
               "/v1/instances//evidence", "/v1/instances/a/b", "/v1/instances/a/evidence/", "v1/instances",
               "//v1/instances", "/healthz/", "/v1/instances/a/evidence/b");
  CHECK(match("GET", path).allow.empty());
}

TEST_CASE("routes: a wrong method is told the right ones") {
  const Match found = match("PUT", "/v1/instances");
  CHECK(found.route == nullptr);
  CHECK(found.allow == "POST, GET");
  CHECK(match("get", "/healthz").route == nullptr);
}

TEST_CASE(
    "routes: what acts on an instance needs its owner; the log's entries and statements need an operator") {
  const Route* statements = match("POST", "/v1/instances/a/measurements").route;
  for (const Route& route : routes()) {
    const bool names_one = route.pattern.find("{id}") != std::string_view::npos;
    INFO(route.pattern);
    CHECK(names_one == (route.permission == Permission::Owner || &route == statements));
  }
  CHECK(statements->permission == Permission::Operator);
  CHECK(match("GET", "/v1/log/entries").route->permission == Permission::Operator);
}

TEST_CASE("OpenAPI: the document has each route, and no other") {
  const json::Value document = openapi();
  std::size_t described = 0;
  for (const auto& [path, methods] : document["paths"].items())
    for (const auto& [method, operation] : methods.items())
      described += method != "parameters";
  for (const Route& route : routes()) {
    INFO(route.method << " " << route.pattern);
    REQUIRE(document["paths"].contains(std::string(route.pattern)));
    CHECK(document["paths"][std::string(route.pattern)].contains(lower(route.method)));
  }
  CHECK(described == routes().size());
}
