// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/engine_loop.h"

#include "daemon/engine/device.h"
#include "daemon/engine/endpoint.h"
#include "daemon/engine/fuse_mount.h"
#include "daemon/engine/halt_poll.h"
#include "daemon/engine/log.h"
#include "daemon/engine/socket_node.h"
#include "daemon/engine/tpm.h"
#include "daemon/engine/tpm_commands.h"
#include "daemon/ipc/engine_limits.h"
#include "daemon/ipc/engine_status.h"
#include "daemon/ipc/frame.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>

namespace vtpm::engine {
namespace {

// From the first frame of a transfer to its last. A vtpmd that dies in between leaves a transfer without end,
// and tenants are not to wait for it. Once an instance is in the log all its requests and replies are single
// frames, and the socket has room for many.
constexpr std::chrono::seconds kWholeRequest{2};
constexpr std::chrono::seconds kWholeReply{2};

class Engine {
 public:
  explicit Engine(UniqueFd control) : control_(std::move(control)) { device_.watch(look, this); }

  int run();

 private:
  // What a request is answered with: a payload, or an error.
  using Answer = Result<Bytes>;
  struct Handler {
    ipc::Verb verb;
    Answer (Engine::*run)(ipc::Transfer&);
  };
  static const Handler kHandlers[];

  unsigned state() const noexcept;
  // False ends the engine, with exit_status_.
  bool work_off_control();
  bool serve_control();
  bool reply(const ipc::FrameHead& head, BytesView payload);
  bool refuse(std::string_view why);
  void settle(const Endpoint& but);
  void remove_gone();
  static bool look(void* engine);
  Result<> power_off();

  Answer power_on(ipc::Transfer& request);
  Answer power_on_durable(ipc::Transfer& request);
  Answer transmit(ipc::Transfer& request);
  Answer hash_sequence(ipc::Transfer& request);
  Answer serve(ipc::Transfer& request);
  Answer permanent_state(ipc::Transfer& request);
  Answer shutdown(ipc::Transfer& request);
  Answer status(ipc::Transfer& request);
  Answer limits(ipc::Transfer& request);

  UniqueFd control_;
  Tpm tpm_;
  Device device_{tpm_};
  Connections connections_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  HaltPoll halt_poll_;
  std::unique_ptr<KeptRequests> kept_ = std::make_unique_for_overwrite<KeptRequests>();
  std::size_t glances_ = 0;
  bool was_on_ = false;
  int exit_status_ = 0;
};

const Engine::Handler Engine::kHandlers[] = {
    {ipc::Verb::PowerOn, &Engine::power_on},  {ipc::Verb::PowerOnDurable, &Engine::power_on_durable},
    {ipc::Verb::Transmit, &Engine::transmit}, {ipc::Verb::HashSequence, &Engine::hash_sequence},
    {ipc::Verb::Serve, &Engine::serve},       {ipc::Verb::PermanentState, &Engine::permanent_state},
    {ipc::Verb::Shutdown, &Engine::shutdown}, {ipc::Verb::Status, &Engine::status},
    {ipc::Verb::Limits, &Engine::limits},
};

unsigned Engine::state() const noexcept {
  if (tpm_.powered()) return ipc::kWhenOn;
  return was_on_ ? ipc::kWhenStopped : ipc::kWhenNever;
}

int Engine::run() {
  Wait wait;
  std::vector<std::size_t> begins;  // of each endpoint's part of wait.polled, and the end of the last
  for (;;) {
    remove_gone();
    wait.polled.assign(1, {control_.get(), POLLIN, 0});
    begins.assign(1, 1);
    for (const auto& endpoint : endpoints_) {
      endpoint->wait_for(wait);
      begins.push_back(wait.polled.size());
    }
    if (halt_poll_.wait(wait.polled, wait.until) < 0 && errno != EINTR) {
      log_line(std::string("poll: ") + std::strerror(errno));
      exit_status_ = ipc::kExitBug;
      break;
    }
    const bool all = device_.contended(HaltPoll::Clock::now());
    const std::span<const pollfd> polled(wait.polled);
    for (std::size_t i = 0; i < endpoints_.size(); ++i)
      endpoints_[i]->handle(polled.subspan(begins[i], begins[i + 1] - begins[i]), all);
    wait.until = device_.run_one(HaltPoll::Clock::now());
    if (kept_->work_off([](FuseMount& mount, BytesView request) { mount.handle_kept(request); }))
      wait.until = HaltPoll::Clock::now();
    for (const auto& endpoint : endpoints_)
      endpoint->answer_polls();
    if (polled[0].revents == 0) continue;
    if (!work_off_control()) break;
    wait.until = HaltPoll::Clock::now();  // other limits may have come
  }
  if (const auto orderly = power_off(); !orderly) log_line(orderly.error().context);
  return exit_status_;
}

void Engine::remove_gone() {
  std::erase_if(endpoints_, [](const auto& endpoint) {
    if (endpoint->error() != 0) log_line(std::string("device node: ") + std::strerror(endpoint->error()));
    return endpoint->gone();
  });
}

// In a signal handler.
bool Engine::look(void* engine) {
  auto& self = *static_cast<Engine*>(engine);
  GlanceBudget budget(self.endpoints_.size());
  return glance_at(self.endpoints_, self.glances_++, *self.kept_, budget);
}

bool Engine::refuse(std::string_view why) {
  log_line(std::string(why) + ": this engine ends");
  exit_status_ = ipc::kExitProtocol;
  return false;
}

// All that is asked already: who asks for several nodes to be served does not wait for the commands that the
// first one's tenants have at once.
bool Engine::work_off_control() {
  pollfd more{control_.get(), POLLIN, 0};
  do {
    if (!serve_control()) return false;
  } while (::poll(&more, 1, 0) > 0);
  return true;
}

bool Engine::serve_control() {
  auto request = ipc::receive_transfer(control_.get(), after(kWholeRequest));
  if (!request && request.error().kind() == ErrorCode::Timeout) return true;
  if (!request)
    return request.error().kind() == ErrorCode::Unreachable ? false : refuse(request.error().context);
  const auto* row = ipc::find_verb(static_cast<std::uint16_t>(request->head.verb));
  const auto handler = std::find_if(std::begin(kHandlers), std::end(kHandlers),
                                    [row](const Handler& h) { return h.verb == row->verb; });
  if (request->head.reply || handler == std::end(kHandlers) || (row->when & state()) == 0)
    return refuse(std::string(row->name) + " is not permitted now");
  auto answer = (this->*handler->run)(*request);
  ipc::FrameHead head{request->head.verb, true, false, request->head.id, 0};
  if (answer) return reply(head, *answer);
  const Error error = answer.error();  // by value: a view into it needs a name
  head.status = static_cast<std::uint32_t>(error.kind());
  return reply(head, as_bytes(error.context));
}

// A reply that nobody takes is lost: its vtpmd is gone, and the next one asks again. Only a socket without
// another end (the keeper is gone, too) ends the engine.
bool Engine::reply(const ipc::FrameHead& head, BytesView payload) {
  const auto sent = ipc::send_transfer(control_.get(), head, payload, {}, after(kWholeReply));
  return sent || sent.error().kind() == ErrorCode::Timeout;
}

void Engine::settle(const Endpoint& but) {
  for (const auto& endpoint : endpoints_)
    if (endpoint.get() != &but && endpoint->kind() == but.kind()) endpoint->catch_up();
}

Result<> Engine::power_off() {
  if (!tpm_.powered()) return {};
  auto orderly = shutdown_clear(tpm_);
  tpm_.power_off();
  device_.powered_off();
  return orderly;
}

Engine::Answer Engine::power_on(ipc::Transfer& request) {
  VTPM_TRY_VOID(tpm_.power_on(request.payload));
  was_on_ = true;
  return Bytes{};
}

Engine::Answer Engine::power_on_durable(ipc::Transfer& request) {
  constexpr std::size_t kIdSize = std::tuple_size_v<ipc::InstanceIdBytes>;
  constexpr std::size_t kLeastAt = kIdSize + ipc::kStateKeySize;
  const BytesView payload = request.payload;
  if (payload.size() != kLeastAt + sizeof(std::uint64_t))
    return Error(ErrorCode::Malformed, "a durable power-on of another size");
  const auto key = payload.subspan(kIdSize, ipc::kStateKeySize);
  SlotOwner owner{{}, Secret(Bytes(key.begin(), key.end()))};
  std::ranges::copy(payload.first(kIdSize), owner.id.begin());
  OPENSSL_cleanse(request.payload.data() + kIdSize, ipc::kStateKeySize);
  VTPM_TRY(SlotStore slots,
           SlotStore::open(std::move(owner), get_be<std::uint64_t>(payload, kLeastAt),
                           slot_file(std::move(request.fds[0])), slot_file(std::move(request.fds[1]))));
  if (!slots.remark().empty()) log_line(slots.remark());
  VTPM_TRY_VOID(tpm_.power_on_durable(std::move(slots)));
  was_on_ = true;
  Bytes sequence;
  put_be(sequence, tpm_.sequence());
  return sequence;
}

Engine::Answer Engine::transmit(ipc::Transfer& request) {
  if (request.payload.empty()) return Error(ErrorCode::Malformed, "no locality");
  VTPM_TRY(const auto locality, tpm::Locality::make(request.payload[0]));
  return device_.supervise(locality, BytesView(request.payload).subspan(1));
}

Engine::Answer Engine::hash_sequence(ipc::Transfer& request) {
  VTPM_TRY_VOID(tpm_.hash_sequence(request.payload));
  return Bytes{};
}

Engine::Answer Engine::serve(ipc::Transfer& request) {
  if (request.payload.size() != 2 || request.payload[0] > ipc::kServeRaw)
    return Error(ErrorCode::Malformed, "no such kind of node");
  const auto channel = request.payload[1];
  if (channel > ipc::kChannelSocket) return Error(ErrorCode::Unsupported, "no such channel");
  if (endpoints_.size() == kMaxNodes)
    return Error(ErrorCode::Exhausted,
                 "an instance has at most " + std::to_string(kMaxNodes) + " device nodes");
  // What poll(2) has told can vanish again (its process is killed): to take it must not block then.
  if (::fcntl(request.fds[0].get(), F_SETFL, O_NONBLOCK) != 0) return errno_error("device node", errno);
  const auto kind = request.payload[0] == ipc::kServeManaged ? NodeKind::Managed : NodeKind::Raw;
  if (channel == ipc::kChannelSocket) {
    endpoints_.push_back(
        std::make_unique<SocketNode>(std::move(request.fds[0]), device_, kind, connections_));
    return Bytes{};
  }
  auto mount = std::make_unique<FuseMount>(std::move(request.fds[0]), device_, kind,
                                           [this](const Endpoint& endpoint) { settle(endpoint); });
  if (channel == ipc::kChannelOrphaned) VTPM_TRY_VOID(mount->resume());
  endpoints_.push_back(std::move(mount));
  return Bytes{};
}

Engine::Answer Engine::permanent_state(ipc::Transfer&) {
  const auto state = tpm_.permanent_state();
  return Bytes(state.begin(), state.end());
}

Engine::Answer Engine::shutdown(ipc::Transfer&) {
  VTPM_TRY_VOID(power_off());
  return Bytes{};
}

Engine::Answer Engine::status(ipc::Transfer&) {
  ipc::EngineStatus status;
  status.sequence = tpm_.sequence();
  const auto counters = device_.counters();
  status.commands = counters.commands;
  status.busy_us = static_cast<std::uint64_t>(counters.busy / std::chrono::microseconds(1));
  status.throttled = counters.throttled;
  status.spaces = counters.spaces.spaces;
  status.swaps = counters.spaces.swaps;
  status.evictions = counters.spaces.evictions;
  status.nv_bytes = tpm_.permanent_state().size();
  status.cancelled = counters.cancelled;
  return ipc::encode(status);
}

Engine::Answer Engine::limits(ipc::Transfer& request) {
  VTPM_TRY(const ipc::EngineLimits limits, ipc::decode_limits(request.payload));
  device_.set_limits(limits);
  return Bytes{};
}

}  // namespace

int run_engine(UniqueFd control) {
  return Engine(std::move(control)).run();
}

}  // namespace vtpm::engine
