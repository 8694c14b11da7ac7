// SPDX-License-Identifier: Apache-2.0
// What a response means for the tables, and what of it differs between the TPM's bytes and the client's.
#include "space/execution.h"

#include <algorithm>
#include <ranges>

namespace vtpm::space {
namespace {

using tpm::CommandCode;
using tpm::kHeaderSize;

// How many more of something there is room for. A managed space always has room for one more, by swapping,
// until it is at its limit; else it sees what the bare TPM would show.
std::uint32_t available(std::size_t capacity, std::size_t held, std::size_t limit, Kind kind) noexcept {
  const std::size_t left = capacity - std::min(capacity, held);
  if (kind == Kind::Raw) return static_cast<std::uint32_t>(left);
  return held >= limit ? 0 : static_cast<std::uint32_t>(std::max<std::size_t>(1, left));
}

}  // namespace

Result<Outcome> Execution::account(const Reply& reply) {
  Bytes response(reply.response.begin(), reply.response.end());
  if (reply.code != tpm::ResponseCode::Success) return Outcome(std::move(response));
  account_for_ended();
  account_for_flushed();
  if (command_.attributes().makes_handle() && response.size() >= kHeaderSize + 4) account_for_made(response);
  if (command_.code() == CommandCode::ContextSave)
    account_for_saved(BytesView(response).subspan(kHeaderSize));
  if (command_.code() == CommandCode::GetCapability && has_view(command_))
    write_view(view(), command_, response);
  if (command_.attributes().extensive()) VTPM_TRY_VOID(account_for_extensive());
  return Outcome(std::move(response));
}

// Sessions that the client let go with this command.
void Execution::account_for_ended() {
  for (const auto& session : command_.sessions())
    if (is_session(session.value) && !session.continues) state_.sessions.erase(session.value);
}

void Execution::account_for_flushed() {
  if (command_.code() == CommandCode::FlushContext) {
    const auto handle = get_be<std::uint32_t>(command_.parameters());
    if (Object* object = space_.find(handle)) state_.residency.drop(*object);
    if (is_session(handle)) state_.sessions.erase(handle);
  } else if (command_.attributes().flushes()) {
    // SequenceComplete and EventSequenceComplete: the sequence is the only object among their handles.
    for (const auto& handle : command_.handles())
      if (Object* object = space_.find(handle.value)) state_.residency.drop(*object);
  }
}

void Execution::account_for_made(Bytes& response) {
  const auto handle = get_be<std::uint32_t>(response, kHeaderSize);
  if (is_session(handle)) {
    const Session* known =
        command_.code() == CommandCode::ContextLoad ? state_.sessions.find(handle) : nullptr;
    state_.sessions.put(
        {handle, &space_, known != nullptr ? known->born : now_, state_.residency.tick(), Session::Loaded{}});
  } else if (is_transient(handle)) {
    const Object& object = state_.residency.add(space_, RealHandle{handle});
    Bytes virtual_handle;
    put_be(virtual_handle, static_cast<std::uint32_t>(object.handle));
    std::ranges::copy(virtual_handle, response.begin() + kHeaderSize);
  }
}

void Execution::account_for_saved(BytesView context) {
  if (command_.handles().empty()) return;
  const std::uint32_t handle = command_.handles().front().value;
  if (!is_session(handle)) return;
  if (Session* session = state_.sessions.find(handle)) state_.residency.saved_by_client(*session, context);
}

// Clear, HierarchyControl, ChangeEPS, ChangePPS: whatever is gone is gone for its owner at once, not when he
// happens to use it.
Result<> Execution::account_for_extensive() {
  VTPM_TRY_VOID(state_.residency.recheck(state_.raw));
  for (const auto& [id, space] : state_.spaces)
    VTPM_TRY_VOID(state_.residency.recheck(*space));
  return {};
}

CapabilityView Execution::view() const {
  CapabilityView seen{};
  for (const auto& [handle, object] : space_.objects)
    seen.objects.push_back(static_cast<std::uint32_t>(handle));
  for (const auto& [slot, session] : state_.sessions) {
    const bool saved = session.saved_by_client() != nullptr;
    if (session.owner == &space_ && !saved) seen.loaded_sessions.push_back(session.handle);
    // libtpms does not remember the type of a saved session and lists it as an HMAC session.
    if (saved && (session.owner == &space_ || session.owner == nullptr))
      seen.saved_sessions.push_back(kHmacSessionFirst | static_cast<std::uint32_t>(slot));
  }
  const auto& capacity = state_.residency.capacity();
  const std::size_t active = seen.loaded_sessions.size() + seen.saved_sessions.size();
  seen.objects_available = available(capacity.objects, seen.objects.size(), object_limit(), space_.kind);
  seen.loaded_available =
      available(capacity.loaded_sessions, seen.loaded_sessions.size(), session_limit(), space_.kind);
  seen.active_available = static_cast<std::uint32_t>(session_limit() - std::min(session_limit(), active));
  return seen;
}

}  // namespace vtpm::space
