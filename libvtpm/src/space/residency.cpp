// SPDX-License-Identifier: Apache-2.0
#include "space/residency.h"

#include <algorithm>
#include <utility>

namespace vtpm::space {
namespace {

using tpm::ResponseCode;

// The TPM says that there is no such context: TPM_RC_REFERENCE_H0, or a fault of the handle or context.
bool is_gone(ResponseCode code) noexcept {
  return code == ResponseCode::ReferenceH0 || blames_command(code);
}

Bytes copy(BytesView bytes) {
  return {bytes.begin(), bytes.end()};
}

// TPMS_CONTEXT: sequence u64, savedHandle u32 (Part 2, 14.5).
bool is_of_sequence(BytesView context) noexcept {
  constexpr std::size_t kSavedHandleAt = 8;
  constexpr std::uint32_t kSequence = 0x80000001;
  return context.size() < kSavedHandleAt + sizeof kSequence ||
         get_be<std::uint32_t>(context, kSavedHandleAt) == kSequence;
}

}  // namespace

void Residency::power_on(Capacity capacity) {
  capacity_ = capacity;
  slots_.assign(capacity.objects, nullptr);
}

template <class Context>
bool Residency::may_leave(const Context& context) const noexcept {
  return context.used != tick_ && (context.owner != space_ || space_->kind != Kind::Raw);
}

template <class Context>
bool Residency::leaves_before(const Context& a, const Context& b) const noexcept {
  return std::pair(a.owner == space_, a.used) < std::pair(b.owner == space_, b.used);
}

void Residency::settle(Object& object, RealHandle real) {
  const std::size_t index = static_cast<std::uint32_t>(real) & kIndexMask;
  if (index >= slots_.size()) slots_.resize(index + 1, nullptr);
  // Who was believed to be there is not, or the TPM would not have given the handle out: he must not reach
  // it.
  if (Object* stale = slots_[index]; stale != nullptr) drop(*stale);
  slots_[index] = &object;
  object.real = real;
}

Object& Residency::add(Space& owner, RealHandle real) {
  const VirtualHandle handle = owner.handle_for(real);
  Object& object = owner.objects.emplace(handle, Object{&owner, handle, tick_, {}, {}}).first->second;
  settle(object, real);
  return object;
}

void Residency::drop(Object& object) {
  std::ranges::replace(slots_, &object, nullptr);
  object.owner->objects.erase(object.handle);
}

Result<ResponseCode> Residency::bring_in(Object& object) {
  while (!object.loaded()) {
    ResponseCode code = ResponseCode::ObjectMemory;
    if (std::ranges::find(slots_, nullptr) != slots_.end()) {
      VTPM_TRY(const Reply reply, tpm_.context_load(object.context));
      code = reply.code;
      if (code == ResponseCode::Success) {
        settle(object, RealHandle{get_be<std::uint32_t>(reply.body)});
        if (is_of_sequence(object.context)) object.context.clear();
      }
    }
    if (code == ResponseCode::ObjectMemory) {
      VTPM_TRY(code, make_object_room());
    } else if (blames_command(code)) {
      drop(object);
      return ResponseCode::Success;
    }
    if (code != ResponseCode::Success) return code;
  }
  return ResponseCode::Success;
}

Result<ResponseCode> Residency::bring_in_session(std::uint32_t handle) {
  for (;;) {
    // Looked up again each time: making room may find that it is gone.
    Session* session = sessions_.find(handle);
    if (session == nullptr || session->swapped() == nullptr) return ResponseCode::Success;
    VTPM_TRY(const Reply reply, tpm_.context_load(session->swapped()->bytes));
    ResponseCode code = reply.code;
    if (code == ResponseCode::Success) {
      session->place = Session::Loaded{};
    } else if (code == ResponseCode::SessionMemory) {
      VTPM_TRY(code, make_session_room());
    } else if (code == ResponseCode::ContextGap) {
      VTPM_TRY(code, narrow_gap());
    } else if (blames_command(code)) {
      VTPM_TRY_VOID(flush(*session));
      code = ResponseCode::Success;
    }
    if (code != ResponseCode::Success) return code;
  }
}

Result<ResponseCode> Residency::make_object_room() {
  Object* leaving = nullptr;
  for (Object* object : slots_)
    if (object != nullptr && may_leave(*object) && (leaving == nullptr || leaves_before(*object, *leaving)))
      leaving = object;
  if (leaving == nullptr) return ResponseCode::ObjectMemory;
  return save(*leaving);
}

Result<ResponseCode> Residency::save(Object& object) {
  const auto real = static_cast<std::uint32_t>(*object.real);
  if (object.context.empty()) {
    VTPM_TRY(const Reply reply, tpm_.context_save(real));
    if (is_gone(reply.code)) {
      drop(object);
      return ResponseCode::Success;
    }
    if (reply.code != ResponseCode::Success) return reply.code;
    object.context = copy(reply.body);
  }
  VTPM_TRY(const Reply flushed, tpm_.flush_context(real));
  if (flushed.code != ResponseCode::Success && !is_gone(flushed.code)) return flushed.code;
  std::ranges::replace(slots_, &object, nullptr);
  object.real.reset();
  ++swaps_;
  return ResponseCode::Success;
}

Result<ResponseCode> Residency::make_session_room() {
  Session* leaving = nullptr;
  for (auto& [slot, session] : sessions_)
    if (session.loaded() && may_leave(session) && (leaving == nullptr || leaves_before(session, *leaving)))
      leaving = &session;
  if (leaving == nullptr) return ResponseCode::SessionMemory;
  return save(*leaving);
}

Result<ResponseCode> Residency::save(Session& session) {
  VTPM_TRY(const Reply reply, tpm_.context_save(session.handle));
  if (is_gone(reply.code)) {
    sessions_.erase(session.handle);
    return ResponseCode::Success;
  }
  // Nothing has left, but now the next attempt will succeed.
  if (reply.code == ResponseCode::ContextGap) return narrow_gap();
  if (reply.code != ResponseCode::Success) return reply.code;
  session.place = Session::Swapped{{++order_, copy(reply.body)}};
  ++swaps_;
  return ResponseCode::Success;
}

Result<ResponseCode> Residency::narrow_gap() {
  Session* oldest = nullptr;
  for (auto& [slot, session] : sessions_)
    if (!session.loaded() && (oldest == nullptr || session.context()->order < oldest->context()->order))
      oldest = &session;
  if (oldest == nullptr) return ResponseCode::ContextGap;

  Session::Context& context = *oldest->context();
  if (!context.bytes.empty()) {
    // The TPM keeps a slot free for this: with the gap at its limit it loads the oldest session only.
    VTPM_TRY(const Reply loaded, tpm_.context_load(context.bytes));
    if (loaded.code == ResponseCode::Success) {
      VTPM_TRY(const Reply saved, tpm_.context_save(oldest->handle));
      if (saved.code == ResponseCode::Success) {
        context = {++order_, copy(saved.body)};
        return ResponseCode::Success;
      }
    } else if (!blames_command(loaded.code) && loaded.code != ResponseCode::SessionMemory) {
      return loaded.code;
    }
  }
  // A context that nobody can renew would stop every client's sessions: it is the one to go.
  VTPM_TRY_VOID(evict(*oldest));
  return ResponseCode::Success;
}

Result<> Residency::flush(Object& object) {
  const auto real = object.real;
  drop(object);
  if (real) VTPM_TRY_VOID(tpm_.flush_context(static_cast<std::uint32_t>(*real)));
  return {};
}

Result<> Residency::flush(const Session& session) {
  const std::uint32_t handle = session.handle;
  sessions_.erase(handle);
  VTPM_TRY_VOID(tpm_.flush_context(handle));
  return {};
}

Result<> Residency::evict(const Session& session) {
  ++evictions_;
  return flush(session);
}

Result<> Residency::recheck(Space& space) {
  std::vector<std::uint32_t> handles;
  for (const auto& [handle, object] : space.objects)
    handles.push_back(static_cast<std::uint32_t>(handle));
  for (const std::uint32_t handle : handles)
    if (Object* object = space.find(handle); object != nullptr) VTPM_TRY_VOID(recheck(*object));
  return {};
}

Result<> Residency::recheck(Object& object) {
  if (object.loaded()) {
    VTPM_TRY(const Reply reply, tpm_.context_save(static_cast<std::uint32_t>(*object.real)));
    if (is_gone(reply.code)) drop(object);
    return {};
  }
  // Where no room can be made it shows when it is loaded.
  if (std::ranges::find(slots_, nullptr) == slots_.end()) VTPM_TRY_VOID(make_object_room());
  VTPM_TRY(const Reply reply, tpm_.context_load(object.context));
  if (reply.code == ResponseCode::Success) {
    VTPM_TRY_VOID(tpm_.flush_context(get_be<std::uint32_t>(reply.body)));
  } else if (blames_command(reply.code)) {
    drop(object);
  }
  return {};
}

void Residency::saved_by_client(Session& session, BytesView context) {
  session.place = Session::Saved{{++order_, copy(context)}, copy(context)};
}

Result<std::uint32_t> Residency::absent_object(std::uint32_t handle) {
  const std::size_t index = handle & kIndexMask;
  // Beyond the TPM's slots it is a value out of range, which the TPM tells from a slot that is empty.
  if (index >= slots_.size() || slots_[index] == nullptr) return handle;
  auto vacant = std::ranges::find(slots_, nullptr);
  if (vacant == slots_.end()) {
    VTPM_TRY_VOID(make_object_room());
    vacant = std::ranges::find(slots_, nullptr);
  }
  if (vacant == slots_.end()) return kNoTransient;
  return kTransientFirst + static_cast<std::uint32_t>(vacant - slots_.begin());
}

std::uint32_t Residency::absent_session(std::uint32_t handle) const {
  const Session* there = sessions_.find(handle);
  if (there == nullptr || !there->loaded()) return handle;
  for (std::uint32_t other = type_of(handle);; ++other)
    if (const Session* session = sessions_.find(other); session == nullptr || !session->loaded())
      return other;
}

std::optional<std::uint32_t> Residency::inactive_session(std::uint32_t handle) const {
  for (std::uint32_t index = 0; index < capacity_.active_sessions; ++index)
    if (sessions_.find(index) == nullptr) return type_of(handle) | index;
  return std::nullopt;
}

}  // namespace vtpm::space
