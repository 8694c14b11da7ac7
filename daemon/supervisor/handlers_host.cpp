// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/handlers.h"
#include "daemon/supervisor/metrics.h"
#include "json/strict.h"

#include <vtpm/os/encoding.h>

#include <algorithm>
#include <array>

namespace vtpm::supervisor::handlers {
namespace {

constexpr std::uint64_t kMaxEntries = 1000;

HttpReply reply_with(const json::Value& value) {
  HttpReply reply;
  reply.body = json::dump(value) + "\n";
  return reply;
}

json::Value hex_list(const log::Path& path) {
  json::Value list = json::Value::array();
  for (const auto& hash : path)
    list.push_back(to_hex(hash));
  return list;
}

json::Value pcrs_of(const tpm::PcrValues& pcrs) {
  json::Value out = json::Value::object();
  for (const auto& [index, value] : pcrs)
    out[std::to_string(index)] = to_hex(value);
  return out;
}

json::Value describe(const SignedEpoch& epoch) {
  return {{"tree_size", epoch.epoch.tree_size},
          {"root", to_hex(epoch.epoch.root)},
          {"nonce_root", to_hex(epoch.epoch.nonce_root)},
          {"nonces", epoch.nonces.size()},
          {"time", epoch.epoch.time},
          {"quote_ms", epoch.duration.count()}};
}

std::string description_of(const anchor::AnchorIdentity& anchor) {
  if (anchor.kind == log::AnchorKind::Embedded) return "software, not hardware";
  return "TPM: " + anchor.manufacturer;
}

// 64 bits do not survive a reader whose JSON numbers are doubles.
std::string hexadecimal(std::uint64_t value) {
  Bytes bytes;
  put_be(bytes, value);
  return to_hex(bytes);
}

struct JailPart {
  std::uint32_t bit;
  std::string_view name;
};
constexpr std::array kJailParts{
    JailPart{ipc::kJailNamespaces, "namespaces"},           JailPart{ipc::kJailEmptyRoot, "empty_root"},
    JailPart{ipc::kJailPidNamespaces, "pid_namespaces"},    JailPart{ipc::kJailLandlock, "landlock"},
    JailPart{ipc::kJailNoExecGain, "no_executable_memory"}, JailPart{ipc::kJailLockedMemory, "locked_memory"},
};

json::Value jail_of(std::uint32_t parts) {
  json::Value out = json::Value::object();
  for (const JailPart& part : kJailParts)
    out[std::string(part.name)] = (parts & part.bit) != 0;
  return out;
}

std::string_view state_of(const AnchorHealth& health) noexcept {
  if (!health.failure) return "ready";
  const ErrorCode code = health.failure->kind();
  return code == ErrorCode::Unavailable || code == ErrorCode::Timeout ? "busy" : "unreachable";
}

struct ProofQuery {
  std::map<std::string, std::uint64_t> values;
  bool has(const char* name) const { return values.contains(name); }
  std::uint64_t of(const char* name) const { return values.at(name); }
};

Result<json::Value> prove(const LogStore& log, const ProofQuery& query) {
  json::Value out;
  if (query.has("index")) {
    const std::uint64_t size = query.has("size") ? query.of("size") : log.size();
    VTPM_TRY(const LogHead head, log.head(size));
    VTPM_TRY(const log::Path path, log.inclusion_proof(query.of("index"), size));
    return json::Value{
        {"index", query.of("index")}, {"size", size}, {"root", to_hex(head.root)}, {"path", hex_list(path)}};
  }
  VTPM_TRY(const LogHead from, log.head(query.of("from")));
  VTPM_TRY(const LogHead to, log.head(query.of("to")));
  VTPM_TRY(const log::Path path, log.consistency_proof(from.size, to.size));
  return json::Value{{"from", from.size},
                     {"from_root", to_hex(from.root)},
                     {"to", to.size},
                     {"to_root", to_hex(to.root)},
                     {"path", hex_list(path)}};
}

}  // namespace

Task<HttpReply> get_anchor(Context& context, HttpRequest) {
  const auto& anchor = context.attestation.anchor();
  const AnchorHealth& health = context.epochs.health();
  const auto latest = context.epochs.latest();
  json::Value out{{"kind", log::to_string(anchor.kind)},
                  {"description", description_of(anchor)},
                  {"manufacturer", anchor.manufacturer},
                  {"firmware_version", hexadecimal(anchor.firmware_version)},
                  {"ak_name", to_hex(anchor.ak_name)},
                  {"ak_public", to_base64(anchor.ak_public)},
                  {"quotes", health.quotes},
                  {"failures", health.failures},
                  {"state", state_of(health)}};
  out["ek_certificate"] =
      anchor.ek_certificate ? json::Value(to_base64(*anchor.ek_certificate)) : json::Value(nullptr);
  out["reason"] = health.failure ? json::Value(health.failure->context) : json::Value(nullptr);
  out["pcrs"] = latest ? pcrs_of(latest->quote.pcrs) : json::Value::object();
  out["epoch"] = latest ? describe(*latest) : json::Value(nullptr);
  co_return reply_with(out);
}

Task<HttpReply> get_log_head(Context& context, HttpRequest) {
  const auto read = [&context] { return context.store.log().head(context.store.log().size()); };
  VTPM_CO_TRY(const LogHead head, co_await run_on(context.workers.store, read));
  const json::Value out{{"size", head.size}, {"root", to_hex(head.root)}};
  co_return reply_with(out);
}

Task<HttpReply> get_log_entries(Context& context, HttpRequest request) {
  const std::vector<std::string> allowed{"start", "count"};
  VTPM_CO_TRY(auto query, numbers_of_query(request.target, allowed));
  const std::uint64_t start = query.contains("start") ? query["start"] : 0;
  const std::uint64_t count = std::min(query.contains("count") ? query["count"] : kMaxEntries, kMaxEntries);
  const auto read = [&context, start, count] { return context.store.log().entries(start, count); };
  VTPM_CO_TRY(const std::vector<Bytes> found, co_await run_on(context.workers.store, read));
  json::Value list = json::Value::array();
  for (std::size_t i = 0; i < found.size(); ++i)
    list.push_back({{"index", start + i}, {"entry", as_text(found[i])}});
  const json::Value out{{"start", start}, {"entries", std::move(list)}};
  co_return reply_with(out);
}

Task<HttpReply> get_log_proof(Context& context, HttpRequest request) {
  const std::vector<std::string> allowed{"index", "size", "from", "to"};
  VTPM_CO_TRY(auto values, numbers_of_query(request.target, allowed));
  const ProofQuery query{std::move(values)};
  const bool inclusion = query.has("index") && !query.has("from") && !query.has("to");
  const bool consistency = query.has("from") && query.has("to") && !query.has("index") && !query.has("size");
  if (!inclusion && !consistency)
    co_return Error(ErrorCode::Malformed, "query: either index (and size), or from and to");
  const auto read = [&context, query] { return prove(context.store.log(), query); };
  VTPM_CO_TRY(const json::Value proof, co_await run_on(context.workers.store, read));
  co_return reply_with(proof);
}

Task<HttpReply> get_events(Context& context, HttpRequest request) {
  HttpReply reply;
  reply.type = "text/event-stream";
  reply.stream = context.events.subscribe(std::move(request.peer));
  co_return reply;
}

Task<HttpReply> get_metrics(Context& context, HttpRequest request) {
  std::uint64_t running = 0, failed = 0;
  std::vector<std::string> ids;  // that the peer may know of
  for (const auto& [id, instance] : context.registry.all()) {
    if (may_use(request.peer, context.rules, instance.row.owner_uid)) ids.push_back(id);
    running += std::holds_alternative<Running>(instance.state);
    failed += std::holds_alternative<Failed>(instance.state);
  }
  const auto& counters = context.instances.counters();
  const AnchorHealth& health = context.epochs.health();
  const auto latest = context.epochs.latest();
  const auto duration = latest ? static_cast<std::uint64_t>(latest->duration.count()) : 0;
  const std::array families{
      Family{"vtpm_instances_running", "gauge", "Instances whose engine runs.", running},
      Family{"vtpm_instances_failed", "gauge", "Instances whose engine has died.", failed},
      Family{"vtpm_instances_created_total", "counter", "Instances made.", counters.created},
      Family{"vtpm_instances_destroyed_total", "counter", "Instances destroyed.", counters.destroyed},
      Family{"vtpm_engines_died_total", "counter", "Engines that ended by themselves.", counters.failed},
      Family{"vtpm_epochs_total", "counter", "Quotes of the anchor.", health.quotes},
      Family{"vtpm_epoch_failures_total", "counter", "Epochs that could not be signed.", health.failures},
      Family{"vtpm_epoch_tree_size", "gauge", "Log entries under the last quote.",
             latest ? latest->epoch.tree_size : 0},
      Family{"vtpm_epoch_quote_milliseconds", "gauge", "Duration of the last quote.", duration},
  };
  HttpReply reply;
  reply.type = "text/plain; version=0.0.4; charset=utf-8";
  for (const Family& family : families)
    reply.body += exposition(family);
  const auto statuses = co_await context.instances.statuses(std::move(ids));
  reply.body += exposition(statuses);
  co_return reply;
}

Task<HttpReply> get_health(Context& context, HttpRequest) {
  const json::Value out{{"status", "ok"}, {"version", VTPM_VERSION}, {"jail", jail_of(context.jail)}};
  co_return reply_with(out);
}

}  // namespace vtpm::supervisor::handlers
