// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/engine_link.h"

#include "daemon/ipc/frame.h"
#include "daemon/ipc/passed.h"

#include <vtpm/os/secret.h>

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

namespace vtpm::ipc {
namespace {

Error given_up() {
  return {ErrorCode::Unreachable, "the engine was given up after an error"};
}

Bytes served_as(NodeKind kind, std::uint8_t channel) {
  return {kind == NodeKind::Managed ? kServeManaged : kServeRaw, channel};
}

}  // namespace

void EngineLink::set_deadline(Deadline total) {
  const std::lock_guard lock(mutex_);
  total_ = total;
}

void EngineLink::give_up() {
  const std::lock_guard lock(closing_);
  socket_.reset();
}

Deadline EngineLink::deadline() const {
  const Deadline own = after(kEngineDeadline);
  return total_ ? std::min(*own, *total_) : own;
}

// The id that its reply will have.
Result<std::uint32_t> EngineLink::request(Verb verb, BytesView payload, std::span<const int> fds,
                                          Deadline deadline) {
  const FrameHead head{verb, false, false, ++next_id_, 0};
  VTPM_TRY_VOID(send_transfer(socket_.get(), head, payload, fds, deadline));
  return head.id;
}

Result<Transfer> EngineLink::reply_to(Verb verb, std::uint32_t id, Deadline deadline) {
  VTPM_TRY(Transfer received, receive_reply(deadline));
  if (!received.head.reply || received.head.verb != verb || received.head.id != id)
    return Error(ErrorCode::Malformed, "engine frame: not the reply to the request");
  return received;
}

Result<Bytes> EngineLink::exchange(Verb verb, BytesView payload, std::span<const int> fds) {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  auto reply = [&, until = deadline()]() -> Result<Transfer> {
    VTPM_TRY(const std::uint32_t id, request(verb, payload, fds, until));
    return reply_to(verb, id, until);
  }();
  if (!reply) {
    give_up();  // a late reply must never be taken for another request's
    return std::move(reply).error();
  }
  if (reply->head.status != 0) return error_from_reply(reply->head.status, reply->payload);
  return std::move(reply->payload);
}

// Whoever converses has mutex_ and waits for the engine: only what would close the socket is waited for here.
Result<UniqueFd> EngineLink::duplicate() {
  const std::lock_guard lock(closing_);
  if (!socket_) return given_up();
  UniqueFd copy(::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("the engine's socket", errno);
  return copy;
}

Result<> EngineLink::take_over() {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  auto in_step = [&, deadline = deadline()]() -> Result<> {
    if (!owed_) {
      // Where the other process's ids were is not known: the answer must not be one of its own.
      VTPM_TRY(const Secret start, Secret::random(sizeof next_id_));
      next_id_ = get_be<std::uint32_t>(start.view());
      const FrameHead request{Verb::Status, false, false, next_id_, 0};
      VTPM_TRY_VOID(send_transfer(socket_.get(), request, {}, {}, deadline));
      owed_ = next_id_;
    }
    for (;;) {
      VTPM_TRY(const Transfer received, receive_transfer(socket_.get(), deadline));
      if (!received.head.reply) return Error(ErrorCode::Malformed, "engine frame: a request to vtpmd");
      if (received.head.verb == Verb::Status && received.head.id == owed_) break;
      if (passed(deadline)) return Error(ErrorCode::Timeout, "the engine sends, but not the answer");
    }
    owed_.reset();
    return {};
  }();
  if (!in_step && in_step.error().kind() != ErrorCode::Timeout) give_up();
  return in_step;
}

Result<> EngineLink::power_on(BytesView permanent) {
  VTPM_TRY_VOID(exchange(Verb::PowerOn, permanent));
  return {};
}

Result<std::uint64_t> EngineLink::power_on_durable(const InstanceIdBytes& id, const Secret& state_key,
                                                   std::uint64_t least_sequence, UniqueFd slot_a,
                                                   UniqueFd slot_b) {
  if (state_key.view().size() != kStateKeySize)
    return Error(ErrorCode::Internal, "a state key of another size than 32 bytes");
  Bytes payload;
  payload.reserve(id.size() + kStateKeySize + sizeof least_sequence);  // no copy of the key is left behind
  put(payload, id);
  put(payload, state_key.view());
  put_be(payload, least_sequence);
  const Secret request(std::move(payload));
  const std::array slots = {slot_a.get(), slot_b.get()};
  VTPM_TRY(const Bytes reply, exchange(Verb::PowerOnDurable, request.view(), slots));
  if (reply.size() != sizeof(std::uint64_t))
    return Error(ErrorCode::Malformed, "engine frame: a sequence of another size");
  return get_be<std::uint64_t>(reply);
}

Result<Bytes> EngineLink::transmit(tpm::Locality locality, BytesView command) {
  if (command.size() > kMaxPayload / 2)
    return Error(ErrorCode::Malformed, "a TPM command of more than 32 KiB");
  Bytes payload{locality.value()};
  put(payload, command);
  return exchange(Verb::Transmit, payload);
}

Result<> EngineLink::hash_sequence(BytesView data) {
  if (data.size() > kMaxPayload) return Error(ErrorCode::Malformed, "a hash sequence of more than 64 KiB");
  VTPM_TRY_VOID(exchange(Verb::HashSequence, data));
  return {};
}

Result<> EngineLink::serve(NodeKind kind, int fd, std::uint8_t channel) {
  VTPM_TRY_VOID(exchange(Verb::Serve, served_as(kind, channel), {&fd, 1}));
  return {};
}

Result<std::vector<Result<>>> EngineLink::serve_all(std::span<const Served> nodes) {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  auto outcomes = [&, until = deadline()]() -> Result<std::vector<Result<>>> {
    std::vector<std::uint32_t> asked;
    for (const Served& node : nodes) {
      VTPM_TRY(const std::uint32_t id,
               request(Verb::Serve, served_as(node.kind, node.channel), {&node.fd, 1}, until));
      asked.push_back(id);
    }
    std::vector<Result<>> of_each;
    for (const std::uint32_t id : asked) {
      VTPM_TRY(const Transfer reply, reply_to(Verb::Serve, id, until));
      const bool is_served = reply.head.status == 0;
      of_each.push_back(is_served ? Result<>() : error_from_reply(reply.head.status, reply.payload));
    }
    return of_each;
  }();
  if (!outcomes) give_up();
  return outcomes;
}

Result<> EngineLink::ask_to_serve(const Served& node) {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  const auto id =
      request(Verb::Serve, served_as(node.kind, node.channel), {&node.fd, 1}, after(std::chrono::seconds(0)));
  if (!id) {
    give_up();
    return id.error();
  }
  asked_to_serve_ = *id;
  return {};
}

Result<> EngineLink::served() {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  const auto reply = reply_to(Verb::Serve, asked_to_serve_, after(std::chrono::seconds(0)));
  if (!reply && reply.error().kind() != ErrorCode::Timeout) give_up();
  if (!reply) return reply.error();
  if (reply->head.status != 0) return error_from_reply(reply->head.status, reply->payload);
  return {};
}

// The next frame but for the answer that is owed: that one comes before all others, once.
Result<Transfer> EngineLink::receive_reply(Deadline deadline) {
  VTPM_TRY(Transfer received, receive_transfer(socket_.get(), deadline));
  const FrameHead& head = received.head;
  if (!owed_ || !head.reply || head.verb != Verb::Status || head.id != *owed_) return received;
  owed_.reset();
  return receive_transfer(socket_.get(), deadline);
}

Result<EngineStatus> EngineLink::status_if_free(Deadline deadline) {
  const std::lock_guard lock(mutex_);
  if (!socket_) return given_up();
  const auto give_up_unless_late = [this](Error error) {
    if (error.kind() != ErrorCode::Timeout) give_up();
    return error;
  };
  const auto answer_to = [this](std::uint32_t id, Deadline until) -> Result<EngineStatus> {
    VTPM_TRY(const Transfer received, receive_transfer(socket_.get(), until));
    if (!received.head.reply || received.head.verb != Verb::Status || received.head.id != id)
      return Error(ErrorCode::Malformed, "engine frame: not the reply to the request");
    owed_.reset();
    if (received.head.status != 0) return error_from_reply(received.head.status, received.payload);
    return decode_status(received.payload);
  };
  if (owed_) {
    const auto late = answer_to(*owed_, after(std::chrono::milliseconds(0)));
    if (!late && late.error().kind() == ErrorCode::Timeout)
      return Error(ErrorCode::Busy, "the engine still owes its last answer");
    if (!late) return give_up_unless_late(late.error());
  }
  const FrameHead request{Verb::Status, false, false, ++next_id_, 0};
  const auto sent = send_transfer(socket_.get(), request, {}, {}, deadline);
  if (!sent) return give_up_unless_late(sent.error());
  owed_ = request.id;
  auto status = answer_to(request.id, deadline);
  if (!status) return give_up_unless_late(status.error());
  return status;
}

Result<> EngineLink::set_limits(const EngineLimits& limits) {
  VTPM_TRY_VOID(exchange(Verb::Limits, encode(limits)));
  return {};
}

Result<EngineStatus> EngineLink::status() {
  VTPM_TRY(const Bytes reply, exchange(Verb::Status, {}));
  return decode_status(reply);
}

Result<Bytes> EngineLink::permanent_state() {
  return exchange(Verb::PermanentState, {});
}

Result<> EngineLink::shutdown() {
  VTPM_TRY_VOID(exchange(Verb::Shutdown, {}));
  return {};
}

}  // namespace vtpm::ipc
