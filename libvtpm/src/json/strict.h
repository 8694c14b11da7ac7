// SPDX-License-Identifier: Apache-2.0
// Strict JSON: bounded, no duplicate keys, every member asked for by name and type, unknown members refused.
// Internal to the project: nlohmann/json never shows in a public header.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <nlohmann/json.hpp>

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace vtpm::json {

using Value = nlohmann::json;

inline constexpr std::size_t kMaxDepth = 32;

// The value of a JSON text (RFC 8259, UTF-8). More than `limit` bytes, a syntax error, a duplicate key in an
// object or nesting deeper than kMaxDepth: Malformed.
Result<Value> parse(std::string_view text, std::size_t limit);

// Compact, members sorted by the bytes of their names. Bytes that are not UTF-8 become U+FFFD. Never fails.
std::string dump(const Value& value);

class Reader;

// A value and its place in the document ("instances[2].name"), which every error names. Borrows the value.
class Item {
 public:
  Item(const Value& value, std::string path) : value_(&value), path_(std::move(path)) {}

  // Each: Malformed when the value has another type or spelling.
  Result<std::string> string() const;
  Result<bool> boolean() const;
  // A number without sign, fraction or exponent, from 0 to `max`.
  Result<std::uint64_t> integer(std::uint64_t max = std::numeric_limits<std::uint64_t>::max()) const;
  // Lower-case hexadecimal digits, two for each byte.
  Result<Bytes> hex() const;
  // 64 such digits: 32 bytes.
  Result<Bytes> sha256() const;
  // RFC 4648 section 4, padded, canonical.
  Result<Bytes> base64() const;
  Result<std::vector<Item>> array(std::size_t max_elements = std::numeric_limits<std::size_t>::max()) const;
  Result<Reader> object() const;

  const Value& value() const noexcept { return *value_; }
  const std::string& path() const noexcept { return path_; }
  // Malformed: "path: what".
  Error malformed(std::string_view what) const;

 private:
  const Value* value_;
  std::string path_;
};

// An object whose members are taken one by one; done() refuses those that nobody took. Borrows the value.
class Reader {
 public:
  // `path` begins every error; the document itself may have an empty one. Not an object: Malformed.
  static Result<Reader> of(const Value& value, std::string path = {});

  // Takes a member. Absent: Malformed.
  Result<Item> member(std::string_view name);
  // Takes a member that may be absent. A null is not absence: it is a value of the wrong type.
  std::optional<Item> optional_member(std::string_view name);
  bool has(std::string_view name) const;

  // member() and its conversion in one step.
  Result<std::string> string(std::string_view name);
  Result<std::optional<std::string>> optional_string(std::string_view name);
  Result<bool> boolean(std::string_view name);
  // Absent: `fallback`.
  Result<bool> optional_boolean(std::string_view name, bool fallback);
  Result<std::uint64_t> integer(std::string_view name,
                                std::uint64_t max = std::numeric_limits<std::uint64_t>::max());
  // Absent: `fallback`.
  Result<std::uint64_t> optional_integer(std::string_view name, std::uint64_t fallback,
                                         std::uint64_t max = std::numeric_limits<std::uint64_t>::max());
  Result<Bytes> hex(std::string_view name);
  Result<Bytes> sha256(std::string_view name);
  Result<Bytes> base64(std::string_view name);
  Result<std::vector<Item>> array(std::string_view name,
                                  std::size_t max_elements = std::numeric_limits<std::size_t>::max());
  Result<Reader> object(std::string_view name);

  // The names of all members, for objects that are maps.
  std::vector<std::string> names() const;
  // A member that was not taken: Malformed, with its name.
  Result<> done() const;
  const std::string& path() const noexcept { return path_; }

 private:
  Reader(const Value& value, std::string path) : value_(&value), path_(std::move(path)) {}
  std::string path_of(std::string_view name) const;

  const Value* value_;
  std::string path_;
  std::set<std::string, std::less<>> taken_;
};

}  // namespace vtpm::json
