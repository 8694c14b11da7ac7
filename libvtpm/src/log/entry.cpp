// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/log/entry.h>
#include <vtpm/os/encoding.h>

namespace vtpm::log {
namespace {

constexpr std::size_t kMaxEntrySize = 64 * 1024;

json::Value value_of(const HostStart& entry) {
  return {{"kind", "host.start"},
          {"time", entry.time},
          {"anchor", to_string(entry.anchor)},
          {"ak_name", to_hex(entry.ak_name)},
          {"pcrs", to_value(entry.pcrs)},
          {"vtpmd", to_hex(entry.vtpmd)},
          {"engine", to_hex(entry.engine)},
          {"version", entry.version}};
}

json::Value value_of(const HostStop& entry) {
  return {{"kind", "host.stop"}, {"time", entry.time}};
}

json::Value value_of(const InstanceCreate& entry) {
  json::Value value = {{"kind", "instance.create"},
                       {"time", entry.time},
                       {"instance", entry.instance},
                       {"ek_name", to_hex(entry.ek_name)},
                       {"ak_name", to_hex(entry.ak_name)},
                       {"launch", to_hex(entry.launch)},
                       {"owner", entry.owner},
                       {"host_start", entry.host_start}};
  if (entry.container) value["container"] = *entry.container;
  if (entry.image) value["image"] = *entry.image;
  if (entry.config) value["config"] = *entry.config;
  return value;
}

json::Value value_of(const InstanceDestroy& entry) {
  return {{"kind", "instance.destroy"},
          {"time", entry.time},
          {"instance", entry.instance},
          {"reason", entry.reason}};
}

json::Value value_of(const InstanceReset& entry) {
  return {{"kind", "instance.reset"},
          {"time", entry.time},
          {"instance", entry.instance},
          {"reason", entry.reason}};
}

json::Value value_of(const InstanceState& entry) {
  return {{"kind", "instance.state"},
          {"time", entry.time},
          {"instance", entry.instance},
          {"sequence", entry.sequence}};
}

Result<Entry> host_start(json::Reader& reader) {
  HostStart entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  VTPM_TRY(const json::Item anchor, reader.member("anchor"));
  VTPM_TRY(entry.anchor, anchor_kind(anchor));
  VTPM_TRY(entry.ak_name, object_name(reader, "ak_name"));
  VTPM_TRY(const json::Item pcrs, reader.member("pcrs"));
  VTPM_TRY(entry.pcrs, pcr_values(pcrs));
  VTPM_TRY(entry.vtpmd, sha256(reader, "vtpmd"));
  VTPM_TRY(entry.engine, sha256(reader, "engine"));
  VTPM_TRY(entry.version, plain_text(reader, "version", kMaxShortText));
  return Entry(std::move(entry));
}

Result<Entry> host_stop(json::Reader& reader) {
  HostStop entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  return Entry(entry);
}

Result<Entry> instance_create(json::Reader& reader) {
  InstanceCreate entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  VTPM_TRY(entry.instance, plain_text(reader, "instance", kMaxId));
  VTPM_TRY(entry.owner, uid(reader, "owner"));
  VTPM_TRY(entry.host_start, reader.integer("host_start"));
  VTPM_TRY(entry.container, optional_plain_text(reader, "container", kMaxId));
  VTPM_TRY(entry.image, optional_content_digest(reader, "image"));
  VTPM_TRY(entry.config, optional_content_digest(reader, "config"));
  VTPM_TRY(entry.ek_name, object_name(reader, "ek_name"));
  VTPM_TRY(entry.ak_name, object_name(reader, "ak_name"));
  VTPM_TRY(entry.launch, sha256(reader, "launch"));
  return Entry(std::move(entry));
}

Result<Entry> instance_destroy(json::Reader& reader) {
  InstanceDestroy entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  VTPM_TRY(entry.instance, plain_text(reader, "instance", kMaxId));
  VTPM_TRY(entry.reason, plain_text(reader, "reason", kMaxShortText));
  return Entry(std::move(entry));
}

Result<Entry> instance_reset(json::Reader& reader) {
  InstanceReset entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  VTPM_TRY(entry.instance, plain_text(reader, "instance", kMaxId));
  VTPM_TRY(entry.reason, plain_text(reader, "reason", kMaxShortText));
  return Entry(std::move(entry));
}

Result<Entry> instance_state(json::Reader& reader) {
  InstanceState entry{};
  VTPM_TRY(entry.time, reader.integer("time"));
  VTPM_TRY(entry.instance, plain_text(reader, "instance", kMaxId));
  VTPM_TRY(entry.sequence, reader.integer("sequence"));
  return Entry(std::move(entry));
}

Result<Entry> entry_of_kind(std::string_view kind, json::Reader& reader) {
  if (kind == "host.start") return host_start(reader);
  if (kind == "host.stop") return host_stop(reader);
  if (kind == "instance.create") return instance_create(reader);
  if (kind == "instance.destroy") return instance_destroy(reader);
  if (kind == "instance.reset") return instance_reset(reader);
  if (kind == "instance.state") return instance_state(reader);
  return Error(ErrorCode::Malformed, "kind: unknown");
}

}  // namespace

std::string_view to_string(AnchorKind kind) noexcept {
  return kind == AnchorKind::Tpm ? "tpm" : "embedded";
}

std::string serialize(const Entry& entry) {
  return json::dump(std::visit([](const auto& e) { return value_of(e); }, entry));
}

Result<Entry> parse_entry(BytesView bytes) {
  VTPM_TRY(const json::Value value, json::parse(as_text(bytes), kMaxEntrySize));
  VTPM_TRY(json::Reader reader, json::Reader::of(value));
  VTPM_TRY(const std::string kind, reader.string("kind"));
  VTPM_TRY(Entry entry, entry_of_kind(kind, reader));
  VTPM_TRY_VOID(reader.done());
  if (serialize(entry) != as_text(bytes))
    return Error(ErrorCode::Malformed, "an entry has its members sorted and no white space");
  return entry;
}

}  // namespace vtpm::log
