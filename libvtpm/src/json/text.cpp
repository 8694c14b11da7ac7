// SPDX-License-Identifier: Apache-2.0
#include "json/text.h"

namespace vtpm::json {

Result<std::string> plain_text(const Item& item, std::size_t max) {
  VTPM_TRY(std::string text, item.string());
  if (!is_plain_text(text, max))
    return item.malformed("must be 1 to " + std::to_string(max) + " bytes without control characters");
  return text;
}

Result<std::string> plain_text(Reader& reader, std::string_view name, std::size_t max) {
  VTPM_TRY(const Item item, reader.member(name));
  return plain_text(item, max);
}

Result<std::optional<std::string>> optional_plain_text(Reader& reader, std::string_view name,
                                                       std::size_t max) {
  const auto item = reader.optional_member(name);
  if (!item) return std::optional<std::string>();
  VTPM_TRY(std::string text, plain_text(*item, max));
  return std::optional<std::string>(std::move(text));
}

Result<std::string> content_digest(const Item& item) {
  VTPM_TRY(std::string text, item.string());
  if (!is_content_digest(text))
    return item.malformed("must be \"sha256:\" and 64 lower-case hexadecimal digits");
  return text;
}

Result<std::optional<std::string>> optional_content_digest(Reader& reader, std::string_view name) {
  const auto item = reader.optional_member(name);
  if (!item) return std::optional<std::string>();
  VTPM_TRY(std::string text, content_digest(*item));
  return std::optional<std::string>(std::move(text));
}

}  // namespace vtpm::json
