// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/handlers.h"
#include "json/strict.h"
#include "json/text.h"

#include <vtpm/os/encoding.h>

#include <array>

namespace vtpm::supervisor::handlers {
namespace {

constexpr std::size_t kMaxBody = 1024 * 1024;
constexpr std::size_t kMaxDescription = 1024;

json::Value text_or_null(const std::optional<std::string>& text) {
  return text ? json::Value(*text) : json::Value(nullptr);
}

json::Value nodes_of(const Instance& instance) {
  json::Value nodes = json::Value::array();
  if (const auto* state = std::get_if<Running>(&instance.state))
    for (const Node& node : state->nodes)
      nodes.push_back({{"kind", control::to_string(node.kind)},
                       {"path", node.path},
                       {"backend", control::to_string(node.backend)},
                       {"state", node.gone ? "gone" : "served"}});
  return nodes;
}

// What is kept of a durable instance: null for others.
json::Value storage_of(const Context& context, const InstanceRow& row) {
  if (!row.durable) return nullptr;
  return {{"slots", context.instances.slot_files().paths(row.id)}, {"sequence", row.durable->sequence}};
}

// What its engine was told; of an instance without one, what the next will be told.
json::Value limits_of(const Context& context, const Instance& instance, const Provisioned& made) {
  if (made.limits) return to_json(*made.limits);
  if (std::holds_alternative<Running>(instance.state)) return nullptr;
  return to_json(context.instances.limits_of(instance.row));
}

json::Value use_of(const ipc::EngineStatus& status) {
  return {{"commands", status.commands},   {"busy_us", status.busy_us},  {"throttled", status.throttled},
          {"cancelled", status.cancelled}, {"spaces", status.spaces},    {"swaps", status.swaps},
          {"evictions", status.evictions}, {"nv_bytes", status.nv_bytes}};
}

// The instance as the API shows it. Precondition: it is shown.
json::Value describe(const Context& context, const Instance& instance, const Provisioned& made) {
  const InstanceRow& row = instance.row;
  const auto* failed = std::get_if<Failed>(&instance.state);
  json::Value out{{"id", row.id}, {"owner_uid", row.owner_uid}, {"created", row.created}};
  out["durable"] = row.durable.has_value();
  out["storage"] = storage_of(context, row);
  out["name"] = text_or_null(row.name);
  out["container"] = text_or_null(row.container);
  out["image"] = text_or_null(row.image);
  out["config"] = text_or_null(row.config);
  out["state"] = state_name(instance.state);
  out["reason"] = failed != nullptr ? json::Value(failed->reason) : json::Value(nullptr);
  const bool running = std::holds_alternative<Running>(instance.state);
  out["pid"] = running ? json::Value(made.engine_pid) : json::Value(nullptr);
  out["cgroup"] = running ? json::Value(made.placed ? "container" : "daemon") : json::Value(nullptr);
  out["ek_name"] = to_hex(made.identity.ek_name);
  out["ak_name"] = to_hex(made.identity.ak_name);
  out["ek_public"] = to_base64(made.identity.ek_public);
  out["ak_public"] = to_base64(made.identity.ak_public);
  out["launch"] = to_hex(made.launch);
  out["log_index"] = made.log_index;
  out["nodes"] = nodes_of(instance);
  out["limits"] = limits_of(context, instance, made);
  out["use"] = nullptr;  // GET of the one instance asks its engine
  return out;
}

Result<json::Value> describe(Context& context, const std::string& id) {
  const Instance* instance = context.registry.find(id);
  const Provisioned* made = instance == nullptr ? nullptr : shown(*instance);
  if (made == nullptr) return Error(ErrorCode::NotFound, "no instance " + id);
  return describe(context, *instance, *made);
}

// As `describe`, after its end.
json::Value ended(json::Value instance) {
  instance["state"] = "destroyed";
  instance["reason"] = "requested";
  instance["pid"] = nullptr;
  instance["cgroup"] = nullptr;
  instance["nodes"] = json::Value::array();
  return instance;
}

HttpReply reply_with(const json::Value& value, unsigned status = 200) {
  HttpReply reply;
  reply.status = status;
  reply.body = json::dump(value) + "\n";
  return reply;
}

Result<Order> parse_order(const HttpRequest& request) {
  Order order;
  order.owner = request.peer.uid;
  if (request.body.empty()) return order;
  VTPM_TRY(const json::Value document, json::parse(request.body, kMaxBody));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY(order.name, reader.optional_string("name"));
  VTPM_TRY(order.launch.container, json::optional_plain_text(reader, "container", kMaxId));
  VTPM_TRY(order.launch.image, json::optional_content_digest(reader, "image"));
  VTPM_TRY(order.durable, reader.optional_boolean("durable", false));
  if (const auto limits = reader.optional_member("limits")) {
    VTPM_TRY(order.limits, read_limits(*limits));
  }
  VTPM_TRY(const auto ek, reader.optional_string("ek"));
  VTPM_TRY_VOID(reader.done());
  if (ek && *ek != "ecc-p256")
    return Error(ErrorCode::Unsupported, "ek: only ecc-p256 is built yet, not " + *ek);
  return order;
}

struct EvidenceOrder {
  Bytes nonce;
  bool fresh;
};

Result<EvidenceOrder> parse_evidence_order(const std::string& body) {
  VTPM_TRY(const json::Value document, json::parse(body, kMaxBody));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY(Bytes nonce, reader.hex("nonce"));
  VTPM_TRY(const bool fresh, reader.optional_boolean("fresh", false));
  VTPM_TRY_VOID(reader.done());
  return EvidenceOrder{std::move(nonce), fresh};
}

struct Measurement {
  log::Sha256 digest;
  std::string description;
};

Result<Measurement> parse_measurement(const std::string& body) {
  VTPM_TRY(const json::Value document, json::parse(body, kMaxBody));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY(const std::uint64_t pcr, reader.integer("pcr"));
  VTPM_TRY(const Bytes digest, reader.sha256("digest"));
  VTPM_TRY(std::string description, json::plain_text(reader, "description", kMaxDescription));
  VTPM_TRY_VOID(reader.done());
  if (pcr != tpm::kOperatorPcr)
    return Error(ErrorCode::Malformed, "pcr: only 18, the operator's, may be measured into");
  VTPM_TRY(const log::Sha256 value, tpm::sha256_from_bytes(digest));
  return Measurement{value, std::move(description)};
}

}  // namespace

Task<HttpReply> create_instance(Context& context, HttpRequest request) {
  VTPM_CO_TRY(Order order, parse_order(request));
  order.limits.by_operator = is_operator(request.peer, context.rules);
  order.quota = order.limits.by_operator ? SIZE_MAX : context.quota;
  VTPM_CO_TRY(const std::string id, co_await context.instances.create(std::move(order)));
  VTPM_CO_TRY(const json::Value instance, describe(context, id));
  co_return reply_with(instance, 201);
}

Task<HttpReply> list_instances(Context& context, HttpRequest request) {
  json::Value list = json::Value::array();
  for (const auto& [id, instance] : context.registry.all()) {
    const Provisioned* made = shown(instance);
    if (made != nullptr && may_use(request.peer, context.rules, instance.row.owner_uid))
      list.push_back(describe(context, instance, *made));
  }
  const json::Value body{{"instances", std::move(list)}};
  co_return reply_with(body);
}

Task<HttpReply> get_instance(Context& context, HttpRequest request) {
  const std::vector<std::string> ids{request.id};
  const auto statuses = co_await context.instances.statuses(ids);
  VTPM_CO_TRY(json::Value instance, describe(context, request.id));
  const auto status = statuses.find(request.id);
  if (status != statuses.end() && instance["state"] == "running") instance["use"] = use_of(status->second);
  co_return reply_with(instance);
}

Task<HttpReply> delete_instance(Context& context, HttpRequest request) {
  VTPM_CO_TRY(json::Value instance, describe(context, request.id));
  VTPM_CO_TRY_VOID(co_await context.instances.destroy(request.id, "requested"));
  co_return reply_with(ended(std::move(instance)));
}

Task<HttpReply> make_evidence(Context& context, HttpRequest request) {
  VTPM_CO_TRY(EvidenceOrder order, parse_evidence_order(request.body));
  const Instance* instance = context.registry.find(request.id);
  const Provisioned* made = instance == nullptr ? nullptr : shown(*instance);
  if (made == nullptr) co_return Error(ErrorCode::NotFound, "no instance " + request.id);
  const std::uint64_t log_index = made->log_index;
  HttpReply reply;
  VTPM_CO_TRY(reply.body, co_await context.attestation.evidence(request.id, log_index, std::move(order.nonce),
                                                                order.fresh));
  co_return reply;
}

Task<HttpReply> get_event_log(Context& context, HttpRequest request) {
  const Instance* instance = context.registry.find(request.id);
  const Provisioned* made = instance == nullptr ? nullptr : shown(*instance);
  if (made == nullptr) co_return Error(ErrorCode::NotFound, "no instance " + request.id);
  HttpReply reply;
  reply.body = made->event_log.to_json();
  co_return reply;
}

Task<HttpReply> add_measurement(Context& context, HttpRequest request) {
  VTPM_CO_TRY(Measurement measurement, parse_measurement(request.body));
  VTPM_CO_TRY_VOID(
      co_await context.instances.measure(request.id, measurement.digest, std::move(measurement.description)));
  co_return co_await get_event_log(context, std::move(request));
}

}  // namespace vtpm::supervisor::handlers
