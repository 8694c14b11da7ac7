// SPDX-License-Identifier: Apache-2.0
#include "log/json_values.h"

#include <vtpm/log/event_log.h>
#include <vtpm/os/encoding.h>
#include <vtpm/tpm/constants.h>

namespace vtpm::log {
namespace {

constexpr std::size_t kMaxEventLogSize = 4 * 1024 * 1024;
constexpr std::size_t kMaxLaunchSize = 8 * 1024;
constexpr std::string_view kLaunchFormat = "vtpm-launch/1";

json::Value value_of(const Event& event) {
  const json::Value digest = {{"hashAlg", "sha256"}, {"digest", to_hex(event.digest)}};
  return {{"recnum", event.recnum},
          {"pcr", event.pcr},
          {"digests", json::Value::array({digest})},
          {"content_type", event.content_type},
          {"content", event.content}};
}

Result<Sha256> single_digest(json::Reader& record) {
  VTPM_TRY(const json::Item list, record.member("digests"));
  VTPM_TRY(const auto digests, list.array(1));
  if (digests.empty()) return list.malformed("must have one element");
  VTPM_TRY(json::Reader reader, digests.front().object());
  VTPM_TRY(const json::Item algorithm, reader.member("hashAlg"));
  VTPM_TRY(const std::string name, algorithm.string());
  if (name != "sha256") return algorithm.malformed("must be \"sha256\"");
  VTPM_TRY(const Sha256 digest, sha256(reader, "digest"));
  VTPM_TRY_VOID(reader.done());
  return digest;
}

Result<Event> parse_event(const json::Item& item, std::uint64_t recnum) {
  VTPM_TRY(json::Reader reader, item.object());
  VTPM_TRY(const std::uint64_t number, reader.integer("recnum"));
  if (number != recnum) return item.malformed("recnum must be " + std::to_string(recnum));
  VTPM_TRY(const std::uint64_t pcr, reader.integer("pcr", tpm::kPcrCount - 1));
  VTPM_TRY(const Sha256 digest, single_digest(reader));
  VTPM_TRY(std::string type, plain_text(reader, "content_type", kMaxShortText));
  VTPM_TRY(std::string content, reader.string("content"));
  VTPM_TRY_VOID(reader.done());
  return Event{number, static_cast<unsigned>(pcr), digest, std::move(type), std::move(content)};
}

}  // namespace

void EventLog::append(unsigned pcr, const Sha256& digest, std::string_view content_type,
                      std::string content) {
  events_.push_back({events_.size(), pcr, digest, std::string(content_type), std::move(content)});
}

PcrValues EventLog::replay() const noexcept {
  PcrValues values;
  for (const Event& event : events_) {
    Sha256& value = values.try_emplace(event.pcr, Sha256{}).first->second;
    value = tpm::extend(value, event.digest);
  }
  return values;
}

json::Value to_value(const EventLog& log) {
  json::Value records = json::Value::array();
  for (const Event& event : log.events())
    records.push_back(value_of(event));
  return records;
}

std::string EventLog::to_json() const {
  return json::dump(to_value(*this));
}

Result<EventLog> EventLog::from_json(std::string_view text) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxEventLogSize));
  VTPM_TRY(const auto records, json::Item(value, "").array(kMaxEvents));
  EventLog log;
  for (const json::Item& record : records) {
    VTPM_TRY(Event event, parse_event(record, log.events_.size()));
    log.events_.push_back(std::move(event));
  }
  return log;
}

std::string launch_document(const Launch& launch) {
  json::Value value = {{"format", kLaunchFormat}, {"instance", launch.instance}, {"owner", launch.owner}};
  if (launch.container) value["container"] = *launch.container;
  if (launch.image) value["image"] = *launch.image;
  if (launch.config) value["config"] = *launch.config;
  return json::dump(value);
}

Result<Launch> parse_launch(std::string_view document) {
  VTPM_TRY(const json::Value value, json::parse(document, kMaxLaunchSize));
  VTPM_TRY(json::Reader reader, json::Reader::of(value, "launch"));
  VTPM_TRY(const json::Item format, reader.member("format"));
  VTPM_TRY(const std::string format_name, format.string());
  if (format_name != kLaunchFormat) return format.malformed("must be \"vtpm-launch/1\"");
  Launch launch{};
  VTPM_TRY(launch.instance, plain_text(reader, "instance", kMaxId));
  VTPM_TRY(launch.owner, uid(reader, "owner"));
  VTPM_TRY(launch.container, optional_plain_text(reader, "container", kMaxId));
  VTPM_TRY(launch.image, optional_content_digest(reader, "image"));
  VTPM_TRY(launch.config, optional_content_digest(reader, "config"));
  VTPM_TRY_VOID(reader.done());
  if (launch_document(launch) != document)
    return Error(ErrorCode::Malformed, "a launch document has its members sorted and no white space");
  return launch;
}

}  // namespace vtpm::log
