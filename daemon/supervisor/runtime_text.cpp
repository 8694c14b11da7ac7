// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/runtime_text.h"

#include "daemon/supervisor/limits.h"
#include "json/strict.h"

#include <vtpm/os/encoding.h>
#include <vtpm/tpm/constants.h>

#include <algorithm>
#include <limits>

namespace vtpm::supervisor {
namespace {

constexpr std::string_view kFormat = "vtpm-runtime/1";
constexpr std::size_t kMaxRuntime = 8 * 1024 * 1024;
constexpr std::size_t kMaxNodes = 64;
constexpr std::string_view kPlaced = "container";  // as the API has it

Result<control::NodeKind> kind_of(const json::Item& item) {
  VTPM_TRY(const std::string text, item.string());
  for (const auto kind : {control::NodeKind::Managed, control::NodeKind::Raw})
    if (text == control::to_string(kind)) return kind;
  return item.malformed("no such kind of node");
}

// Not there: written by a vtpmd that knew no other.
Result<control::Backend> backend_of(json::Reader& reader) {
  const auto item = reader.optional_member("backend");
  if (!item) return control::Backend::Fuse;
  VTPM_TRY(const std::string text, item->string());
  if (auto backend = control::backend_from(text)) return backend;
  return item->malformed("no such backend");
}

Result<std::vector<Node>> nodes_of(json::Reader& reader) {
  std::vector<Node> nodes;
  VTPM_TRY(const auto items, reader.array("nodes", kMaxNodes));
  for (const json::Item& item : items) {
    VTPM_TRY(json::Reader node, item.object());
    VTPM_TRY(const json::Item kind_item, node.member("kind"));
    VTPM_TRY(const control::NodeKind kind, kind_of(kind_item));
    VTPM_TRY(std::string path, node.string("path"));
    Node found{kind, std::move(path)};
    // Not there: written by a vtpmd that gave the keeper no nodes.
    VTPM_TRY(const std::uint64_t number, node.optional_integer("number", 0, UINT8_MAX));
    VTPM_TRY(found.gone, node.optional_boolean("gone", false));
    VTPM_TRY(found.backend, backend_of(node));
    VTPM_TRY_VOID(node.done());
    found.number = static_cast<std::uint8_t>(number);
    nodes.push_back(std::move(found));
  }
  return nodes;
}

Result<identity::Identity> identity_of(json::Reader& reader) {
  identity::Identity identity;
  VTPM_TRY(identity.ek_public, reader.base64("ek_public"));
  VTPM_TRY(identity.ek_name, reader.hex("ek_name"));
  VTPM_TRY(identity.srk_name, reader.hex("srk_name"));
  VTPM_TRY(identity.ak_public, reader.base64("ak_public"));
  VTPM_TRY(identity.ak_name, reader.hex("ak_name"));
  return identity;
}

// All of them, or the member is not there.
Result<std::optional<EngineLimits>> limits_of(json::Reader& reader) {
  const auto item = reader.optional_member("limits");
  if (!item) return std::optional<EngineLimits>();
  VTPM_TRY(LimitOrder order, read_limits(*item));
  order.by_operator = true;
  for (const auto& value : order.values)
    if (!value) return item->malformed("not all limits are there");
  return std::optional(effective({}, order));
}

// Not there: in vtpmd's cgroup.
Result<bool> placed_of(json::Reader& reader) {
  VTPM_TRY(const auto text, reader.optional_string("cgroup"));
  if (text && *text != kPlaced) return Error(ErrorCode::Malformed, "runtime: cgroup: no such place");
  return text.has_value();
}

bool bear_out(const log::EventLog& log, const tpm::PcrValues& pcrs) {
  tpm::PcrValues expected = log.replay();
  expected.try_emplace(tpm::kOperatorPcr, tpm::Sha256{});  // zeros after the launch
  return std::all_of(expected.begin(), expected.end(), [&](const auto& one) {
    const auto found = pcrs.find(one.first);
    return found != pcrs.end() && found->second == one.second;
  });
}

}  // namespace

std::string runtime_text(const Provisioned& made, const std::vector<Node>& nodes) {
  json::Value list = json::Value::array();
  for (const Node& node : nodes)
    list.push_back({{"kind", control::to_string(node.kind)},
                    {"path", node.path},
                    {"backend", control::to_string(node.backend)},
                    {"number", node.number},
                    {"gone", node.gone}});
  const identity::Identity& identity = made.identity;
  json::Value value{{"format", kFormat},
                    {"pid", made.engine_pid},
                    {"launch", to_hex(made.launch)},
                    {"event_log", made.event_log.to_json()},
                    {"nodes", std::move(list)},
                    {"ek_public", to_base64(identity.ek_public)},
                    {"ek_name", to_hex(identity.ek_name)},
                    {"srk_name", to_hex(identity.srk_name)},
                    {"ak_public", to_base64(identity.ak_public)},
                    {"ak_name", to_hex(identity.ak_name)}};
  if (made.limits) value["limits"] = to_json(*made.limits);
  if (made.placed) value["cgroup"] = kPlaced;
  return json::dump(value);
}

Result<Runtime> parse_runtime(std::string_view text, std::uint64_t log_index) {
  VTPM_TRY(const json::Value value, json::parse(text, kMaxRuntime));
  VTPM_TRY(json::Reader reader, json::Reader::of(value, "runtime"));
  VTPM_TRY(const std::string format, reader.string("format"));
  if (format != kFormat) return Error(ErrorCode::Malformed, "runtime: of another format");
  VTPM_TRY(const std::uint64_t pid, reader.integer("pid", std::numeric_limits<pid_t>::max()));
  VTPM_TRY(const Bytes launch_bytes, reader.sha256("launch"));
  VTPM_TRY(const log::Sha256 launch, tpm::sha256_from_bytes(launch_bytes));
  VTPM_TRY(const std::string events, reader.string("event_log"));
  VTPM_TRY(log::EventLog event_log, log::EventLog::from_json(events));
  VTPM_TRY(std::vector<Node> nodes, nodes_of(reader));
  VTPM_TRY(identity::Identity identity, identity_of(reader));
  VTPM_TRY(const std::optional<EngineLimits> limits, limits_of(reader));
  VTPM_TRY(const bool placed, placed_of(reader));
  VTPM_TRY_VOID(reader.done());
  return Runtime{
      {std::move(identity), launch, log_index, static_cast<pid_t>(pid), std::move(event_log), limits, placed},
      std::move(nodes)};
}

Result<log::EventLog> borne_out(const log::EventLog& log, const tpm::PcrValues& pcrs) {
  if (bear_out(log, pcrs)) return log;
  log::EventLog shorter;
  for (std::size_t i = 0; i + 1 < log.events().size(); ++i) {
    const log::Event& event = log.events()[i];
    shorter.append(event.pcr, event.digest, event.content_type, event.content);
  }
  // The launch is never the one to drop.
  const bool statement = !log.events().empty() && log.events().back().pcr == tpm::kOperatorPcr;
  if (statement && bear_out(shorter, pcrs)) return shorter;
  return Error(ErrorCode::Conflict, "its PCRs are not those of its event log");
}

}  // namespace vtpm::supervisor
