// SPDX-License-Identifier: Apache-2.0
#include "control/error_names.h"
#include "json/strict.h"
#include "json/text.h"

#include <vtpm/control/attach.h>

#include <algorithm>

namespace vtpm::control {
namespace {

using json::plain_text;
using json::Reader;
using json::Value;

constexpr std::size_t kMaxInstance = 64;
constexpr std::size_t kMaxPath = 4096;
constexpr std::size_t kMaxDetail = 8192;
constexpr std::size_t kMaxNodes = 2;

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

Result<std::vector<NodeKind>> read_nodes(Reader& reader) {
  VTPM_TRY(const auto items, reader.array("nodes", kMaxNodes));
  std::vector<NodeKind> nodes;
  for (const auto& item : items) {
    VTPM_TRY(const auto name, item.string());
    VTPM_TRY(const auto kind, node_kind_from(name));
    if (std::find(nodes.begin(), nodes.end(), kind) != nodes.end()) return item.malformed("is there twice");
    nodes.push_back(kind);
  }
  if (nodes.empty()) return Error(ErrorCode::Malformed, "nodes: names no node");
  return nodes;
}

Result<AttachMessage> read_launch(Reader& reader) {
  LaunchRequest request;
  VTPM_TRY(request.container, plain_text(reader, "container", kMaxId));
  VTPM_TRY(request.image, json::optional_content_digest(reader, "image"));
  VTPM_TRY(request.name, json::optional_plain_text(reader, "name", kMaxInstance));
  VTPM_TRY(request.durable, reader.boolean("durable"));
  VTPM_TRY(request.nodes, read_nodes(reader));
  VTPM_TRY(request.cgroup, reader.optional_boolean("cgroup", false));
  return AttachMessage(std::move(request));
}

// Not there: sent by a vtpmctl that knew no other.
Result<Backend> read_backend(Reader& reader) {
  VTPM_TRY(const auto name, reader.optional_string("backend"));
  return name ? backend_from(*name) : Backend::Fuse;
}

Result<AttachMessage> read_attach(Reader& reader) {
  VTPM_TRY(auto instance, plain_text(reader, "instance", kMaxInstance));
  VTPM_TRY(const auto node, reader.string("node"));
  VTPM_TRY(const auto kind, node_kind_from(node));
  VTPM_TRY(auto path, plain_text(reader, "path", kMaxPath));
  VTPM_TRY(const auto backend, read_backend(reader));
  return AttachMessage(AttachRequest{std::move(instance), kind, std::move(path), backend});
}

Result<AttachMessage> read_detach(Reader& reader) {
  VTPM_TRY(auto instance, plain_text(reader, "instance", kMaxInstance));
  VTPM_TRY(auto path, plain_text(reader, "path", kMaxPath));
  return AttachMessage(DetachRequest{std::move(instance), std::move(path)});
}

Result<AttachMessage> read_release(Reader& reader) {
  VTPM_TRY(auto container, plain_text(reader, "container", kMaxId));
  return AttachMessage(ReleaseRequest{std::move(container)});
}

struct MessageType {
  std::string_view name;
  Result<AttachMessage> (*read)(Reader&);
};
constexpr MessageType kMessageTypes[] = {
    {"launch", read_launch},
    {"attach", read_attach},
    {"detach", read_detach},
    {"release", read_release},
};

Result<AttachMessage> read_typed(Reader& reader) {
  VTPM_TRY(const auto name, reader.string("type"));
  for (const auto& type : kMessageTypes)
    if (type.name == name) return type.read(reader);
  return Error(ErrorCode::Malformed, "type: no such message: '" + name.substr(0, 32) + "'");
}

// The descriptors that a message comes with.
std::size_t fds_of(const AttachMessage& message) noexcept {
  if (const auto* launch = std::get_if<LaunchRequest>(&message))
    return 2 + launch->nodes.size() + (launch->cgroup ? 1 : 0);
  return std::holds_alternative<AttachRequest>(message) ? 1 : 0;
}

Value to_value(const LaunchRequest& request) {
  Value value = {{"type", "launch"}, {"container", request.container}, {"durable", request.durable}};
  if (request.image) value["image"] = *request.image;
  if (request.name) value["name"] = *request.name;
  if (request.cgroup) value["cgroup"] = true;  // left out otherwise: an earlier vtpmd does not know it
  value["nodes"] = Value::array();
  for (const auto kind : request.nodes)
    value["nodes"].push_back(to_string(kind));
  return value;
}

// The backend only where it must be said: a vtpmd that knows no other refuses the member.
Value to_value(const AttachRequest& request) {
  Value value = {{"type", "attach"},
                 {"instance", request.instance},
                 {"node", to_string(request.node)},
                 {"path", request.path}};
  if (request.backend != Backend::Fuse) value["backend"] = to_string(request.backend);
  return value;
}

// Not an Error itself: a Result of an Error would be ambiguous.
struct ReportedError {
  Error reported;
  ReportedError(ErrorCode code, std::string detail) : reported(code, std::move(detail)) {}
};

Result<ReportedError> read_error(const json::Item& item) {
  VTPM_TRY(auto reader, item.object());
  VTPM_TRY(const auto name, reader.string("code"));
  VTPM_TRY(auto detail, reader.string("detail"));
  VTPM_TRY_VOID(reader.done());
  const auto code = error_code_from(name);
  if (!code) return Error(ErrorCode::Malformed, "error.code: no such code");
  if (detail.size() > kMaxDetail) return Error(ErrorCode::Malformed, "error.detail: too long");
  return ReportedError(*code, std::move(detail));
}

}  // namespace

std::string_view to_string(NodeKind kind) noexcept {
  return kind == NodeKind::Managed ? "managed" : "raw";
}

Result<NodeKind> node_kind_from(std::string_view text) {
  for (const auto kind : {NodeKind::Managed, NodeKind::Raw})
    if (to_string(kind) == text) return kind;
  return Error(ErrorCode::Malformed, "no such kind of node: '" + std::string(text.substr(0, 32)) + "'");
}

std::string_view to_string(Backend backend) noexcept {
  return backend == Backend::Fuse ? "fuse" : "socket";
}

Result<Backend> backend_from(std::string_view text) {
  for (const auto backend : {Backend::Fuse, Backend::Socket})
    if (to_string(backend) == text) return backend;
  return Error(ErrorCode::Malformed, "no such backend: '" + std::string(text.substr(0, 32)) + "'");
}

std::string serialize(const AttachMessage& message) {
  return json::dump(
      std::visit(Overloaded{
                     [](const LaunchRequest& m) { return to_value(m); },
                     [](const AttachRequest& m) { return to_value(m); },
                     [](const DetachRequest& m) {
                       return Value{{"type", "detach"}, {"instance", m.instance}, {"path", m.path}};
                     },
                     [](const ReleaseRequest& m) {
                       return Value{{"type", "release"}, {"container", m.container}};
                     },
                 },
                 message));
}

Result<AttachMessage> parse_attach_message(BytesView bytes, std::size_t fd_count) {
  VTPM_TRY(const auto document, json::parse(as_text(bytes), kMaxAttachMessage));
  VTPM_TRY(auto reader, Reader::of(document));
  VTPM_TRY(auto message, read_typed(reader));
  VTPM_TRY_VOID(reader.done());
  if (fd_count != fds_of(message))
    return Error(ErrorCode::Malformed, "the message came with " + std::to_string(fd_count) +
                                           " descriptors instead of " + std::to_string(fds_of(message)));
  return message;
}

std::string serialize(const AttachReply& reply) {
  if (reply.instance) return json::dump(Value{{"instance", *reply.instance}});
  const Error error = reply.instance.error();
  return json::dump(Value{
      {"error", {{"code", error_name(error.kind())}, {"detail", error.context.substr(0, kMaxDetail)}}}});
}

Result<std::string> parse_attach_reply(BytesView bytes) {
  VTPM_TRY(const auto document, json::parse(as_text(bytes), kMaxAttachMessage));
  VTPM_TRY(auto reader, Reader::of(document));
  if (const auto item = reader.optional_member("error")) {
    VTPM_TRY(auto error, read_error(*item));
    VTPM_TRY_VOID(reader.done());
    return error.reported;
  }
  VTPM_TRY(auto instance, reader.string("instance"));
  VTPM_TRY_VOID(reader.done());
  return instance;
}

Result<std::string> request(const std::string& runtime_dir, const AttachMessage& message,
                            std::span<const int> fds, Deadline deadline) {
  const std::string path = runtime_dir + "/attach.sock";
  VTPM_TRY(const auto socket, connect_seqpacket(path));
  VTPM_TRY_VOID(send_message(socket.get(), as_bytes(serialize(message)), fds, deadline));
  auto answer = receive_message(socket.get(), kMaxAttachMessage, deadline);
  if (!answer) return answer.error().within(path);
  if (answer->refused) return Error(ErrorCode::Malformed, path + ": the reply is too long");
  return parse_attach_reply(answer->bytes);
}

}  // namespace vtpm::control
