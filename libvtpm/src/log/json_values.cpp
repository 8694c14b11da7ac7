// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/constants.h>

#include <algorithm>
#include <charconv>

namespace vtpm::log {
namespace {

constexpr std::size_t kNameSize = 34;
constexpr std::string_view kDigestPrefix = "sha256:";

bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

}  // namespace

json::Value to_value(const tpm::Sha256& digest) {
  return to_hex(digest);
}

json::Value to_value(const tpm::PcrValues& values) {
  json::Value object = json::Value::object();
  for (const auto& [pcr, digest] : values)
    object[std::to_string(pcr)] = to_hex(digest);
  return object;
}

Result<unsigned> pcr_index(std::string_view text) {
  unsigned index = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (failed != std::errc() || std::to_string(index) != text || index >= tpm::kPcrCount)
    return Error(ErrorCode::Malformed, "\"" + std::string(text) + "\" is not a PCR index (0-23)");
  return index;
}

Result<tpm::PcrValues> pcr_values(const json::Item& item) {
  VTPM_TRY(json::Reader reader, item.object());
  tpm::PcrValues values;
  for (const auto& name : reader.names()) {
    auto index = pcr_index(name);
    if (!index) return item.malformed(index.error().context);
    VTPM_TRY(const tpm::Sha256 digest, sha256(reader, name));
    values.emplace(*index, digest);
  }
  return values;
}

Result<tpm::Sha256> sha256(const json::Item& item) {
  VTPM_TRY(const Bytes bytes, item.sha256());
  return tpm::sha256_from_bytes(bytes);
}

Result<tpm::Sha256> sha256(json::Reader& reader, std::string_view name) {
  VTPM_TRY(const json::Item item, reader.member(name));
  return sha256(item);
}

Result<AnchorKind> anchor_kind(const json::Item& item) {
  VTPM_TRY(const std::string text, item.string());
  for (const auto kind : {AnchorKind::Tpm, AnchorKind::Embedded})
    if (text == to_string(kind)) return kind;
  return item.malformed("must be \"tpm\" or \"embedded\"");
}

Result<Bytes> object_name(const json::Item& item) {
  VTPM_TRY(Bytes name, item.hex());
  if (name.size() != kNameSize || get_be<std::uint16_t>(name) != tpm::kAlgSha256)
    return item.malformed("must be a Name with nameAlg SHA-256 (34 bytes)");
  return name;
}

Result<Bytes> object_name(json::Reader& reader, std::string_view name) {
  VTPM_TRY(const json::Item item, reader.member(name));
  return object_name(item);
}

Result<std::string> content_digest(const json::Item& item) {
  VTPM_TRY(std::string text, item.string());
  const std::string_view view = text;
  if (!view.starts_with(kDigestPrefix) || !tpm::sha256_from_hex(view.substr(kDigestPrefix.size())))
    return item.malformed("must be \"sha256:\" and 64 hexadecimal digits");
  return text;
}

Result<std::optional<std::string>> optional_content_digest(json::Reader& reader, std::string_view name) {
  const auto item = reader.optional_member(name);
  if (!item) return std::optional<std::string>();
  VTPM_TRY(std::string text, content_digest(*item));
  return std::optional<std::string>(std::move(text));
}

Result<std::string> plain_text(const json::Item& item, std::size_t max) {
  VTPM_TRY(std::string text, item.string());
  if (text.empty() || text.size() > max || std::ranges::any_of(text, is_control))
    return item.malformed("must be 1 to " + std::to_string(max) + " bytes without control characters");
  return text;
}

Result<std::string> plain_text(json::Reader& reader, std::string_view name, std::size_t max) {
  VTPM_TRY(const json::Item item, reader.member(name));
  return plain_text(item, max);
}

Result<std::optional<std::string>> optional_plain_text(json::Reader& reader, std::string_view name,
                                                       std::size_t max) {
  const auto item = reader.optional_member(name);
  if (!item) return std::optional<std::string>();
  VTPM_TRY(std::string text, plain_text(*item, max));
  return std::optional<std::string>(std::move(text));
}

}  // namespace vtpm::log
