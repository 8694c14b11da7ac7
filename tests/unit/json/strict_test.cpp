// SPDX-License-Identifier: Apache-2.0
#include "json/strict.h"

#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>

using namespace vtpm;

namespace {

constexpr std::size_t kLimit = 10'000;

json::Value parsed(std::string_view text) {
  auto value = json::parse(text, kLimit);
  REQUIRE(value);
  return std::move(*value);
}

std::string refusal(std::string_view text) {
  const auto value = json::parse(text, kLimit);
  REQUIRE_FALSE(value);
  CHECK(value.error().kind() == ErrorCode::Malformed);
  return value.error().context;
}

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

}  // namespace

TEST_CASE("json: the limit of bytes is inclusive") {
  CHECK(json::parse("[1]", 3));
  CHECK(json::parse("[1]", 2).error().context == "JSON larger than 2 bytes");
}

TEST_CASE("json: what is not JSON is malformed") {
  const std::string text =
      GENERATE("", " ", "{", "[1", "[1,]", "{\"a\":1,}", "{a:1}", "'a'", "nul", "[1]]", "[1] [2]", "01", "+1",
               "1.", "NaN", "\"\x01\"", "\"\xff\"", "\"\xc0\xaf\"", "\"\\ud800\"", "// c\n1", "\"a");
  INFO(text);
  CHECK(refusal(text) == "not valid JSON");
}

TEST_CASE("json: a duplicate key is malformed in any object") {
  CHECK(refusal(R"({"a":1,"a":1})") == R"(duplicate member "a")");
  CHECK(refusal(R"({"b":{"a":1,"c":{},"a":2}})") == R"(duplicate member "a")");
  CHECK(refusal(R"([{"a":1},{"b":1,"b":1}])") == R"(duplicate member "b")");
  CHECK(refusal(R"({"a":1,"\u0061":1})") == R"(duplicate member "a")");
  CHECK(json::parse(R"([{"a":1},{"a":{"a":1},"b":[{"a":1}]}])", kLimit));
}

TEST_CASE("json: 32 levels are read, and 33 are malformed") {
  CHECK(json::parse(nested(json::kMaxDepth), kLimit));
  CHECK(refusal(nested(json::kMaxDepth + 1)) == "JSON nested too deeply");
  CHECK(refusal(std::string(kLimit, '[')) == "JSON nested too deeply");
  std::string objects;
  for (std::size_t i = 0; i <= json::kMaxDepth; ++i)
    objects += R"({"a":)";
  CHECK(refusal(objects) == "JSON nested too deeply");
}

TEST_CASE("json: dump is compact, sorted, and never fails") {
  CHECK(json::dump(parsed(R"( { "b" : [ 1 , true ] , "a" : null } )")) == R"({"a":null,"b":[1,true]})");
  CHECK(json::dump(json::Value("\xff")) == "\"\xef\xbf\xbd\"");
}

TEST_CASE("json reader: members are taken by name and type") {
  const auto value = parsed(R"({"s":"x","b":true,"n":7,"h":"00ff","d":")" + std::string(64, '0') +
                            R"(","e":"AP8=","a":[1,2],"o":{"i":5}})");
  auto reader = json::Reader::of(value);
  REQUIRE(reader);
  CHECK(reader->string("s").value() == "x");
  CHECK(reader->boolean("b").value());
  CHECK(reader->integer("n").value() == 7);
  CHECK(reader->hex("h").value() == Bytes{0x00, 0xff});
  CHECK(reader->sha256("d").value() == Bytes(32, 0));
  CHECK(reader->base64("e").value() == Bytes{0x00, 0xff});
  const auto elements = reader->array("a");
  REQUIRE(elements);
  REQUIRE(elements->size() == 2);
  CHECK((*elements)[1].integer().value() == 2);
  CHECK(reader->done().error().context == "o: unknown member");
  auto inner = reader->object("o");
  REQUIRE(inner);
  CHECK(inner->done().error().context == "o.i: unknown member");
  CHECK(inner->integer("i").value() == 5);
  CHECK(inner->done());
  CHECK(reader->done());
}

TEST_CASE("json reader: an absent member is an error or its default, and null is not absence") {
  const auto value = parsed(R"({"null":null})");
  auto reader = json::Reader::of(value, "request");
  REQUIRE(reader);
  CHECK(reader->string("x").error().context == "request.x: missing");
  CHECK_FALSE(reader->optional_string("x").value());
  CHECK(reader->optional_boolean("x", true).value());
  CHECK(reader->optional_integer("x", 3).value() == 3);
  CHECK_FALSE(reader->optional_member("x"));
  CHECK_FALSE(reader->has("x"));
  CHECK(reader->optional_string("null").error().context == "request.null: must be a string");
  CHECK_FALSE(reader->optional_boolean("null", true));
  CHECK_FALSE(reader->optional_integer("null", 3));
}

TEST_CASE("json reader: values of other types and spellings are malformed, with the path") {
  const auto value = parsed(R"({"s":1,"b":1,"n":"1","neg":-1,"zero":-0,"f":1.0,"e":1e2,"h":"0G","o":[],"a":{},
                                "d":"00","big":18446744073709551616,"l":[[1],["x"]]})");
  auto reader = json::Reader::of(value);
  REQUIRE(reader);
  CHECK(reader->string("s").error().context == "s: must be a string");
  CHECK(reader->boolean("b").error().context == "b: must be true or false");
  for (const auto* name : {"n", "neg", "zero", "f", "e", "big"}) {
    INFO(name);
    CHECK(reader->integer(name).error().context ==
          std::string(name) + ": must be a number without sign or fraction");
  }
  CHECK(reader->hex("h").error().context == "h: not lower-case hexadecimal digits");
  CHECK(reader->base64("h").error().context == "h: not canonical base64");
  CHECK(reader->sha256("d").error().context == "d: must be 64 hexadecimal digits");
  CHECK(reader->object("o").error().context == "o: must be an object");
  CHECK(reader->array("a").error().context == "a: must be an array");
  CHECK(reader->array("l", 1).error().context == "l: must have at most 1 elements");
  const auto list = reader->array("l", 2);
  REQUIRE(list);
  const auto inner = (*list)[1].array();
  REQUIRE(inner);
  CHECK(inner->front().integer().error().context == "l[1][0]: must be a number without sign or fraction");
  CHECK_FALSE(json::Reader::of(parsed("[]")));
}

TEST_CASE("json reader: a number's bound is inclusive") {
  const auto value = parsed(R"({"n":18446744073709551615,"m":5})");
  auto reader = json::Reader::of(value);
  REQUIRE(reader);
  CHECK(reader->integer("n").value() == 18446744073709551615ULL);
  CHECK(reader->integer("m", 5).value() == 5);
  CHECK(reader->integer("m", 4).error().context == "m: must be at most 4");
}
