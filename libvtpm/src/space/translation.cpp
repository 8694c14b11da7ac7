// SPDX-License-Identifier: Apache-2.0
// What of a command differs between the client's bytes and the TPM's: handles, and a context gone stale.
#include "space/execution.h"

#include <algorithm>

namespace vtpm::space {
namespace {

using tpm::CommandCode;
using tpm::ResponseCode;

void write_be(Bytes& out, std::size_t offset, std::uint32_t value) noexcept {
  for (std::size_t i = 0; i < 4; ++i)
    out[offset + i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
}

// TPM_RC_HANDLE for parameter 1: what TPM2_FlushContext says of a handle that is in range and names nothing.
constexpr ResponseCode kNothingToFlush{0x1cb};

}  // namespace

Result<std::optional<Outcome>> Execution::translate() {
  state_.outgoing.assign(command_.bytes().begin(), command_.bytes().end());
  for (const auto& handle : command_.handles()) {
    VTPM_TRY(const std::uint32_t real, translated(handle.value));
    write_be(state_.outgoing, handle.offset, real);
  }
  for (const auto& session : command_.sessions()) {
    VTPM_TRY(const std::uint32_t real, translated(session.value));
    write_be(state_.outgoing, session.offset, real);
  }
  if (command_.code() == CommandCode::FlushContext) return translate_flush();
  if (command_.code() == CommandCode::ContextLoad) exchange_stale_context();
  return std::nullopt;
}

Result<std::uint32_t> Execution::translated(std::uint32_t handle) {
  if (is_transient(handle)) {
    const Object* object = space_.find(handle);
    if (object == nullptr) return state_.residency.absent_object(handle);
    return static_cast<std::uint32_t>(*object->real);
  }
  if (is_session(handle)) {
    const Session* session = state_.sessions.find(handle);
    if (session == nullptr || session->owner != &space_) return state_.residency.absent_session(handle);
  }
  return handle;
}

// Its handle is a parameter, and what it names need not be in the TPM: a swapped object is only forgotten.
Result<std::optional<Outcome>> Execution::translate_flush() {
  const BytesView parameters = command_.parameters();
  if (parameters.size() < 4) return std::nullopt;
  const auto handle = get_be<std::uint32_t>(parameters);
  const bool well_formed = parameters.size() == 4 && !command_.has_sessions();
  std::uint32_t real = handle;
  if (is_transient(handle)) {
    Object* object = space_.find(handle);
    if (object != nullptr && !object->loaded() && well_formed) {
      state_.residency.drop(*object);
      return answer(ResponseCode::Success);
    }
    if (object != nullptr && object->loaded()) {
      real = static_cast<std::uint32_t>(*object->real);
    } else {
      VTPM_TRY(real, state_.residency.absent_object(handle));
    }
  } else if (is_session(handle)) {
    const Session* session = state_.sessions.find(handle);
    const bool orphan =
        session != nullptr && session->owner == nullptr && session->saved_by_client() != nullptr;
    if (session != nullptr && session->owner != &space_ && !orphan) {
      const auto inactive = state_.residency.inactive_session(handle);
      if (!inactive && well_formed) return answer(kNothingToFlush);
      real = inactive.value_or(handle | kIndexMask);
    }
  }
  write_be(state_.outgoing, command_.parameters_offset(), real);
  return std::nullopt;
}

// The client saved a session, and to narrow the gap it was saved anew since: what the client has stands for
// what we have.
void Execution::exchange_stale_context() {
  constexpr std::size_t kSavedHandle = 8;
  const BytesView context = command_.parameters();
  if (command_.has_sessions() || context.size() < kSavedHandle + 4) return;
  const auto handle = get_be<std::uint32_t>(context, kSavedHandle);
  if (!is_session(handle)) return;
  const Session* session = state_.sessions.find(handle);
  const auto* saved = session != nullptr ? session->saved_by_client() : nullptr;
  if (saved == nullptr || saved->bytes.empty() || !std::ranges::equal(saved->given_out, context)) return;
  state_.outgoing.resize(command_.parameters_offset());
  put(state_.outgoing, saved->bytes);
  write_be(state_.outgoing, 2, static_cast<std::uint32_t>(state_.outgoing.size()));
}

}  // namespace vtpm::space
