// SPDX-License-Identifier: Apache-2.0
#include "json/strict.h"

#include <vtpm/os/encoding.h>

namespace vtpm::json {
namespace {

constexpr std::size_t kSha256Size = 32;

// What the parser reports while it reads: the keys of each open object, so that a second one is seen.
class DuplicateWatch {
 public:
  bool operator()(int depth, Value::parse_event_t event, const Value& parsed) {
    using Event = Value::parse_event_t;
    switch (event) {
      case Event::object_start:
        open_.emplace_back();
        [[fallthrough]];
      case Event::array_start:
        if (static_cast<std::size_t>(depth) >= kMaxDepth) too_deep_ = true;
        break;
      case Event::object_end:
        if (!open_.empty()) open_.pop_back();
        break;
      case Event::key:
        if (!open_.empty() && !open_.back().insert(parsed.get_ref<const std::string&>()).second)
          duplicate_ = parsed.get_ref<const std::string&>();
        break;
      default:
        break;
    }
    return !too_deep_ && !duplicate_;  // what is refused anyway is not kept
  }

  bool too_deep() const noexcept { return too_deep_; }
  const std::optional<std::string>& duplicate() const noexcept { return duplicate_; }

 private:
  std::vector<std::set<std::string>> open_;
  std::optional<std::string> duplicate_;
  bool too_deep_ = false;
};

template <class T>
Result<T> placed(Result<T> result, const std::string& path) {
  if (!result) return result.error().within(path);
  return result;
}

}  // namespace

Result<Value> parse(std::string_view text, std::size_t limit) {
  if (text.size() > limit)
    return Error(ErrorCode::Malformed, "JSON larger than " + std::to_string(limit) + " bytes");
  DuplicateWatch watch;
  Value value = Value::parse(text, std::ref(watch), false);
  if (watch.too_deep()) return Error(ErrorCode::Malformed, "JSON nested too deeply");
  if (watch.duplicate())
    return Error(ErrorCode::Malformed, "duplicate member \"" + *watch.duplicate() + "\"");
  if (value.is_discarded()) return Error(ErrorCode::Malformed, "not valid JSON");
  // In place: nlohmann's conversions to and from anything would make the plain return ambiguous.
  return Result<Value>(boost::system::in_place_value, std::move(value));
}

std::string dump(const Value& value) {
  return value.dump(-1, ' ', false, Value::error_handler_t::replace);
}

Error Item::malformed(std::string_view what) const {
  return {ErrorCode::Malformed, path_.empty() ? std::string(what) : path_ + ": " + std::string(what)};
}

Result<std::string> Item::string() const {
  if (!value_->is_string()) return malformed("must be a string");
  return value_->get_ref<const std::string&>();
}

Result<bool> Item::boolean() const {
  if (!value_->is_boolean()) return malformed("must be true or false");
  return value_->get<bool>();
}

Result<std::uint64_t> Item::integer(std::uint64_t max) const {
  if (!value_->is_number_unsigned()) return malformed("must be a number without sign or fraction");
  const auto number = value_->get<std::uint64_t>();
  if (number > max) return malformed("must be at most " + std::to_string(max));
  return number;
}

Result<Bytes> Item::hex() const {
  VTPM_TRY(const std::string text, string());
  return placed(from_hex(text), path_);
}

Result<Bytes> Item::sha256() const {
  VTPM_TRY(Bytes bytes, hex());
  if (bytes.size() != kSha256Size) return malformed("must be 64 hexadecimal digits");
  return bytes;
}

Result<Bytes> Item::base64() const {
  VTPM_TRY(const std::string text, string());
  return placed(from_base64(text), path_);
}

Result<std::vector<Item>> Item::array(std::size_t max_elements) const {
  if (!value_->is_array()) return malformed("must be an array");
  if (value_->size() > max_elements)
    return malformed("must have at most " + std::to_string(max_elements) + " elements");
  std::vector<Item> items;
  items.reserve(value_->size());
  for (const Value& element : *value_)
    items.emplace_back(element, path_ + "[" + std::to_string(items.size()) + "]");
  return items;
}

Result<Reader> Item::object() const {
  return Reader::of(*value_, path_);
}

Result<Reader> Reader::of(const Value& value, std::string path) {
  if (!value.is_object()) return Item(value, std::move(path)).malformed("must be an object");
  return Reader(value, std::move(path));
}

std::string Reader::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

std::optional<Item> Reader::optional_member(std::string_view name) {
  const auto found = value_->find(name);
  if (found == value_->end()) return std::nullopt;
  taken_.emplace(name);
  return Item(*found, path_of(name));
}

Result<Item> Reader::member(std::string_view name) {
  auto item = optional_member(name);
  if (!item) return Error(ErrorCode::Malformed, path_of(name) + ": missing");
  return std::move(*item);
}

bool Reader::has(std::string_view name) const {
  return value_->contains(name);
}

Result<std::string> Reader::string(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.string();
}

Result<std::optional<std::string>> Reader::optional_string(std::string_view name) {
  const auto item = optional_member(name);
  if (!item) return std::optional<std::string>();
  VTPM_TRY(std::string text, item->string());
  return std::optional<std::string>(std::move(text));
}

Result<bool> Reader::boolean(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.boolean();
}

Result<bool> Reader::optional_boolean(std::string_view name, bool fallback) {
  const auto item = optional_member(name);
  return item ? item->boolean() : Result<bool>(fallback);
}

Result<std::uint64_t> Reader::integer(std::string_view name, std::uint64_t max) {
  VTPM_TRY(const Item item, member(name));
  return item.integer(max);
}

Result<std::uint64_t> Reader::optional_integer(std::string_view name, std::uint64_t fallback,
                                               std::uint64_t max) {
  const auto item = optional_member(name);
  return item ? item->integer(max) : Result<std::uint64_t>(fallback);
}

Result<Bytes> Reader::hex(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.hex();
}

Result<Bytes> Reader::sha256(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.sha256();
}

Result<Bytes> Reader::base64(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.base64();
}

Result<std::vector<Item>> Reader::array(std::string_view name, std::size_t max_elements) {
  VTPM_TRY(const Item item, member(name));
  return item.array(max_elements);
}

Result<Reader> Reader::object(std::string_view name) {
  VTPM_TRY(const Item item, member(name));
  return item.object();
}

std::vector<std::string> Reader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : value_->items())
    names.push_back(name);
  return names;
}

Result<> Reader::done() const {
  for (const auto& [name, value] : value_->items())
    if (!taken_.contains(name)) return Error(ErrorCode::Malformed, path_of(name) + ": unknown member");
  return {};
}

}  // namespace vtpm::json
