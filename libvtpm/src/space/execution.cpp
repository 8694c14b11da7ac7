// SPDX-License-Identifier: Apache-2.0
#include "space/execution.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace vtpm::space {
namespace {

// More than a TPM has contexts: one that never has room again is not asked for ever.
constexpr unsigned kMaxAttempts = 256;

constexpr bool lacks_room(tpm::ResponseCode code) noexcept {
  return code == tpm::ResponseCode::ObjectMemory || code == tpm::ResponseCode::SessionMemory ||
         code == tpm::ResponseCode::ContextGap || code == tpm::ResponseCode::SessionHandles;
}

std::vector<std::uint32_t> everything_of(const Space& space, const SessionTable& sessions) {
  std::vector<std::uint32_t> handles;
  for (const auto& [handle, object] : space.objects)
    handles.push_back(static_cast<std::uint32_t>(handle));
  for (const auto& [slot, session] : sessions)
    if (session.owner == &space) handles.push_back(session.handle);
  return handles;
}

}  // namespace

using tpm::CommandCode;
using tpm::ResponseCode;

Execution::Makes Execution::makes() const noexcept {
  if (!command_.attributes().makes_handle()) return Makes::Nothing;
  if (command_.code() == CommandCode::StartAuthSession) return Makes::Session;
  // The savedHandle of a TPMS_CONTEXT says what it is of. A session that is loaded is an active one already.
  constexpr std::size_t kSavedHandle = 8;
  if (command_.code() == CommandCode::ContextLoad && command_.parameters().size() >= kSavedHandle + 4 &&
      is_session(get_be<std::uint32_t>(command_.parameters(), kSavedHandle)))
    return Makes::Nothing;
  return Makes::Object;
}

std::size_t Execution::object_limit() const noexcept {
  return space_.kind == Kind::Managed ? state_.limits.objects_per_space
                                      : std::numeric_limits<std::size_t>::max();
}

std::size_t Execution::session_limit() const noexcept {
  const std::size_t active = state_.residency.capacity().active_sessions;
  return space_.kind == Kind::Managed ? std::min(active, state_.limits.sessions_per_space) : active;
}

Result<Outcome> Execution::run() {
  state_.residency.begin(space_);
  name_all();
  VTPM_TRY(auto early, admit());
  while (!early) {
    VTPM_TRY(const ResponseCode ready, bring_in());
    if (ready != ResponseCode::Success) return answer(ready);
    VTPM_TRY(early, translate());
    if (early) break;
    VTPM_TRY(const Reply reply, transmit(state_.tpm, locality_, state_.outgoing));
    if (!lacks_room(reply.code)) {
      state_.queue.leave(space_);
      return account(reply);
    }
    VTPM_TRY(early, make_room(reply.code));
  }
  return std::move(*early);
}

Outcome Execution::answer(ResponseCode code) {
  state_.queue.leave(space_);
  return tpm::error_response(code);
}

Result<std::optional<Outcome>> Execution::admit() {
  if (makes() == Makes::Object && space_.objects.size() >= object_limit())
    return answer(ResponseCode::ObjectMemory);
  if (makes() != Makes::Session) return std::nullopt;
  if (state_.sessions.count(&space_) >= session_limit()) return answer(ResponseCode::SessionHandles);
  // With nobody waiting the TPM says itself whether it has one.
  if (state_.queue.empty()) return std::nullopt;
  return admit_session();
}

Result<std::optional<Outcome>> Execution::admit_session() {
  const std::size_t active = state_.residency.capacity().active_sessions;
  const std::uint64_t tick = state_.residency.tick();
  // The supervisor stands before the queue, and for it every session is old enough.
  const bool at_once = space_.kind == Kind::Supervisor;
  const Admission admission = at_once
                                  ? space::admit(state_.sessions, {}, space_, active, tick,
                                                 Clock::time_point::max() - kSessionMinimumAge)
                                  : space::admit(state_.sessions, state_.queue, space_, active, tick, now_);
  if (const auto* wait = std::get_if<SessionWait>(&admission)) {
    if (at_once) return answer(ResponseCode::SessionHandles);
    state_.queue.join(space_);
    return *wait;
  }
  if (const auto* victim = std::get_if<Evict>(&admission))
    VTPM_TRY_VOID(state_.residency.evict(*state_.sessions.find(victim->session)));
  return std::nullopt;
}

void Execution::name_all() {
  const auto name = [this](std::uint32_t handle) {
    if (Object* object = space_.find(handle)) state_.residency.name(*object);
    if (!is_session(handle)) return;
    Session* session = state_.sessions.find(handle);
    if (session != nullptr && session->owner == &space_) state_.residency.name(*session);
  };
  for (const auto& handle : command_.handles())
    name(handle.value);
  for (const auto& session : command_.sessions())
    name(session.value);
}

Result<ResponseCode> Execution::bring_in() {
  const auto bring = [this](std::uint32_t handle) -> Result<ResponseCode> {
    if (Object* object = space_.find(handle)) return state_.residency.bring_in(*object);
    if (!is_session(handle)) return ResponseCode::Success;
    const Session* session = state_.sessions.find(handle);
    if (session == nullptr || session->owner != &space_) return ResponseCode::Success;
    return state_.residency.bring_in_session(handle);
  };
  // The raw space is whole in the TPM, as if it were alone there.
  if (space_.kind == Kind::Raw) {
    for (const std::uint32_t handle : everything_of(space_, state_.sessions)) {
      VTPM_TRY(const ResponseCode code, bring(handle));
      if (code != ResponseCode::Success) return code;
    }
    return ResponseCode::Success;
  }
  for (const auto& handle : command_.handles()) {
    VTPM_TRY(const ResponseCode code, bring(handle.value));
    if (code != ResponseCode::Success) return code;
  }
  for (const auto& session : command_.sessions()) {
    VTPM_TRY(const ResponseCode code, bring(session.value));
    if (code != ResponseCode::Success) return code;
  }
  return ResponseCode::Success;
}

Result<std::optional<Outcome>> Execution::make_room(ResponseCode lacking) {
  if (++attempts_ > kMaxAttempts) return answer(lacking);
  if (lacking == ResponseCode::SessionHandles) {
    // As far as we know there is one: then it is not for us to free.
    if (state_.sessions.size() < state_.residency.capacity().active_sessions) return answer(lacking);
    return admit_session();
  }
  VTPM_TRY(const ResponseCode code,
           lacking == ResponseCode::ObjectMemory    ? state_.residency.make_object_room()
           : lacking == ResponseCode::SessionMemory ? state_.residency.make_session_room()
                                                    : state_.residency.narrow_gap());
  if (code != ResponseCode::Success) return answer(code);
  return std::nullopt;
}

}  // namespace vtpm::space
