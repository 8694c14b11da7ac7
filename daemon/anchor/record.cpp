// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/record.h"

#include "daemon/anchor/attestation_key.h"
#include "json/strict.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <openssl/crypto.h>

namespace vtpm::anchor {
namespace {

constexpr std::string_view kFormat = "vtpm-anchor/1";
constexpr std::size_t kMaxSize = 4096;
constexpr std::size_t kNameSize = 34;  // nameAlg SHA-256 || digest
constexpr mode_t kOwnerOnly = 0600;

// Bytes of a text that held a secret.
void wipe(std::string& text) noexcept {
  OPENSSL_cleanse(text.data(), text.size());
}

Result<log::AnchorKind> kind_from(std::string_view text) {
  for (auto kind : {log::AnchorKind::Tpm, log::AnchorKind::Embedded})
    if (text == log::to_string(kind)) return kind;
  return Error(ErrorCode::Malformed, "kind: neither \"tpm\" nor \"embedded\"");
}

Result<Record> parse(std::string_view text) {
  VTPM_TRY(const json::Value document, json::parse(text, kMaxSize));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY(const std::string format, reader.string("format"));
  if (format != kFormat) return Error(ErrorCode::Malformed, "format: not " + std::string(kFormat));
  VTPM_TRY(const std::string kind_text, reader.string("kind"));
  VTPM_TRY(const log::AnchorKind kind, kind_from(kind_text));
  VTPM_TRY(const std::uint64_t handle, reader.integer("handle", kLastHandle));
  if (handle < kFirstHandle) return Error(ErrorCode::Malformed, "handle: out of the anchor's range");
  VTPM_TRY(Bytes name, reader.hex("ak_name"));
  if (name.size() != kNameSize) return Error(ErrorCode::Malformed, "ak_name: not a SHA-256 Name");
  VTPM_TRY(Bytes auth, reader.hex("auth"));
  Secret secret(std::move(auth));
  if (secret.view().size() != kAuthSize) return Error(ErrorCode::Malformed, "auth: of another size");
  VTPM_TRY_VOID(reader.done());
  return Record{kind, static_cast<std::uint32_t>(handle), std::move(name), std::move(secret)};
}

}  // namespace

std::string record_path(const std::string& state_dir) {
  return state_dir + "/anchor.json";
}

Result<std::optional<Record>> read_record(const std::string& state_dir) {
  const std::string path = record_path(state_dir);
  auto bytes = read_file(path, kMaxSize);
  if (!bytes) {
    if (bytes.error().kind() == ErrorCode::NotFound) return std::optional<Record>();
    return Error(ErrorCode::Corrupt, bytes.error().context);
  }
  const Secret content(std::move(*bytes));
  auto record = parse(as_text(content.view()));
  if (!record) return Error(ErrorCode::Corrupt, path + ": " + record.error().context);
  return std::optional<Record>(std::move(*record));
}

Result<> write_record(const std::string& state_dir, const Record& record) {
  std::string auth = to_hex(record.auth.view());
  json::Value document = {{"format", kFormat},
                          {"kind", log::to_string(record.kind)},
                          {"handle", record.handle},
                          {"ak_name", to_hex(record.ak_name)},
                          {"auth", auth}};
  std::string text = json::dump(document);
  auto written = replace_file(record_path(state_dir), as_bytes(text), kOwnerOnly);
  wipe(document["auth"].get_ref<std::string&>());
  wipe(text);
  wipe(auth);
  return written;
}

}  // namespace vtpm::anchor
