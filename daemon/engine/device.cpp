// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/device.h"

#include "daemon/engine/fatal.h"
#include "daemon/engine/log.h"
#include "daemon/engine/tpm_commands.h"

#include <algorithm>
#include <utility>

namespace vtpm::engine {
namespace {

// A wait for a session that is over already would be a busy loop.
constexpr FairQueue::Duration kLeastWait = std::chrono::milliseconds(1);

SpaceId open_or_end(space::ResourceManager& spaces, space::Kind kind) {
  const auto space = spaces.open(kind);
  if (!space) fatal("the first spaces cannot be opened");
  return *space;
}

}  // namespace

Device::Device(Tpm& tpm)
    : tpm_(tpm),
      chip_(tpm),
      spaces_(chip_),
      supervisor_(open_or_end(spaces_, space::Kind::Supervisor)),
      raw_(open_or_end(spaces_, space::Kind::Raw)) {}

void Device::watch(LongCommand::Look look, void* context) noexcept {
  look_ = look;
  look_context_ = context;
}

void Device::set_limits(const ipc::EngineLimits& limits) {
  spaces_.set_limits({limits.spaces, limits.objects_per_space, limits.sessions_per_space});
  quota_.set(limits);
}

Result<SpaceId> Device::open(NodeKind kind) {
  if (kind == NodeKind::Managed) return spaces_.open(space::Kind::Managed);
  if (raw_is_open_) return Error(ErrorCode::Busy, "the raw node is open already");
  raw_is_open_ = true;
  return raw_;
}

bool Device::has_room(NodeKind kind) const {
  return kind == NodeKind::Managed ? spaces_.has_room() : !raw_is_open_;
}

void Device::close(SpaceId space) {
  withdraw(space);
  queue_.forget(space, FairQueue::Clock::now());
  if (space == raw_)
    raw_is_open_ = false;
  else
    spaces_.close(space);
}

void Device::submit(SpaceId space, Client& client, Bytes command, Time now) {
  if (!jobs_.try_emplace(space, Job{&client, std::move(command)}).second)
    fatal("a client has two commands at a time");
  queue_.push(space, now);
}

void Device::withdraw(SpaceId space) {
  if (jobs_.erase(space) == 0) return;
  queue_.remove(space);
  spaces_.withdraw(space);
}

std::optional<Device::Time> Device::run_one(Time now) {
  if (jobs_.empty()) return {};
  if (const Time ready = quota_.ready_at(); ready > now) {
    throttle();
    return ready;
  }
  const auto choice = queue_.choose(now);
  if (!choice.run) return choice.later;
  run(*choice.run, now);
  if (jobs_.empty()) return {};
  return now;
}

// All that wait now wait for the quota.
void Device::throttle() {
  for (auto& [space, job] : jobs_)
    if (!std::exchange(job.throttled, true)) ++throttled_;
}

Result<space::Outcome> Device::execute(SpaceId space, const Job& job, Time now) {
  // First: all below reads the header where it has to be.
  const auto check = tpm::check_command(job.command);
  if (check.code != tpm::ResponseCode::Success) return space::Outcome(tpm::error_response(check.code));
  if (quota_.exceeds_nv(job.command, tpm_.permanent_state().size()))
    return space::Outcome(tpm::error_response(tpm::ResponseCode::NvSpace));
  running_ = job.client;
  const LongCommand watched(job.command, look_, look_context_);
  return spaces_.execute(space, tpm::Locality::tenant(), job.command, now);
}

void Device::run(SpaceId space, Time now) {
  const auto job = jobs_.find(space);
  Client& client = *job->second.client;
  cpu_time_.begin(now);
  auto outcome = execute(space, job->second, now);
  running_ = nullptr;
  const auto end = FairQueue::Clock::now();
  if (outcome && std::holds_alternative<space::SessionWait>(*outcome)) {
    queue_.postpone(space, std::max(std::get<space::SessionWait>(*outcome).until, end + kLeastWait));
    return;
  }
  jobs_.erase(job);
  ++commands_;
  const auto cost = cpu_time_.cost(now, end);
  busy_ += cost;
  quota_.ran(cost, end);
  queue_.completed(space, now, end);
  if (outcome) {
    auto response = std::get<Bytes>(std::move(*outcome));
    if (is_cancelled(response)) ++cancelled_;
    client.answered(std::move(response));
  } else {
    if (tpm_.powered()) log_line(outcome.error().context);
    client.failed();
  }
}

Device::Counters Device::counters() const {
  Counters counters{commands_, cancelled_, busy_, throttled_, spaces_.counters()};
  counters.spaces.spaces -= 2;  // the raw nodes' and the supervisor's
  return counters;
}

// Nanoseconds since the host's start: files are not opened that fast.
std::uint64_t Device::new_file_id() {
  const auto now = std::chrono::nanoseconds(FairQueue::Clock::now().time_since_epoch()).count();
  last_file_id_ = std::max(last_file_id_ + 1, static_cast<std::uint64_t>(now));
  return last_file_id_;
}

Result<Bytes> Device::supervise(tpm::Locality locality, BytesView command) {
  const auto check = tpm::check_command(command);
  if (check.code != tpm::ResponseCode::Success) return tpm::error_response(check.code);
  VTPM_TRY(auto outcome, spaces_.execute(supervisor_, locality, command, FairQueue::Clock::now()));
  if (auto* response = std::get_if<Bytes>(&outcome)) return std::move(*response);
  spaces_.withdraw(supervisor_);
  return Error(ErrorCode::Busy, "all sessions of the TPM are in use");
}

}  // namespace vtpm::engine
