// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/http_message.h"

#include "json/strict.h"
#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

TEST_CASE("problem: an error becomes a problem document with its stable name and status") {
  const HttpReply reply = problem(Error(ErrorCode::NotFound, "no instance \"x\""));
  CHECK(reply.status == 404);
  CHECK(reply.type == "application/problem+json");
  const auto body = json::parse(reply.body, 4096);
  REQUIRE(body);
  CHECK((*body)["type"] == "urn:vtpm:error:not-found");
  CHECK((*body)["status"] == 404);
  CHECK((*body)["detail"] == "no instance \"x\"");
}

TEST_CASE("query: decimal numbers by name") {
  const auto query = numbers_of_query("/v1/log/proof?index=3&size=0", {"index", "size"});
  REQUIRE(query);
  CHECK(query->at("index") == 3);
  CHECK(query->at("size") == 0);
  CHECK(numbers_of_query("/v1/log/head", {})->empty());
  CHECK(path_of("/v1/log/proof?index=3") == "/v1/log/proof");
}

TEST_CASE("query: unknown or repeated names and what is not a number are refused") {
  const auto target = GENERATE(as<std::string>(), "/p?other=1", "/p?index", "/p?index=", "/p?index=-1",
                               "/p?index=1x", "/p?index=%31", "/p?index=1&index=1", "/p?=1", "/p?&index=1",
                               "/p?index=18446744073709551615", "/p?index=99999999999999999999");
  CHECK(numbers_of_query(target, {"index"}).error().kind() == ErrorCode::Malformed);
}
