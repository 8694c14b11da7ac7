// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/constants.h>

#include <charconv>
#include <limits>

namespace vtpm::log {
namespace {

constexpr std::size_t kNameSize = 34;

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

Result<std::uint32_t> uid(const json::Item& item) {
  VTPM_TRY(const std::uint64_t number, item.integer(std::numeric_limits<std::uint32_t>::max()));
  return static_cast<std::uint32_t>(number);
}

Result<std::uint32_t> uid(json::Reader& reader, std::string_view name) {
  VTPM_TRY(const json::Item item, reader.member(name));
  return uid(item);
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

}  // namespace vtpm::log
