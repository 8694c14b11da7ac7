// SPDX-License-Identifier: Apache-2.0
// Which contexts are in the TPM, and the moves in and out: the swapping itself.
//
// Lazy: nothing leaves the TPM before the TPM has said that it has no room. Who leaves is the least recently
// used that the running command does not name, of other spaces first. Of the raw space nothing leaves for
// the raw space's own commands: it is answered as by the TPM alone.
//
// The functions return the response code that stopped them, for the client; Success if nothing did.
#pragma once

#include "space/internal_commands.h"
#include "space/session_table.h"

#include <optional>
#include <vector>

namespace vtpm::space {

class Residency {
 public:
  // What the TPM holds at a time (TPM_PT_HR_TRANSIENT_MIN, HR_LOADED_MIN, ACTIVE_SESSIONS_MAX).
  struct Capacity {
    std::size_t objects = 0;
    std::size_t loaded_sessions = 0;
    std::size_t active_sessions = 0;
  };

  Residency(InternalCommands& tpm, SessionTable& sessions) noexcept : tpm_(tpm), sessions_(sessions) {}

  void power_on(Capacity capacity);
  const Capacity& capacity() const noexcept { return capacity_; }

  // A command of `space` begins. What it then names stays in the TPM until the next one.
  void begin(const Space& space) noexcept {
    space_ = &space;
    ++tick_;
  }
  void name(Object& object) noexcept { object.used = tick_; }
  void name(Session& session) noexcept { session.used = tick_; }
  std::uint64_t tick() const noexcept { return tick_; }

  // Loads it if it is out. Dropped where the TPM will never take its context again (its hierarchy was cleared
  // or is disabled).
  Result<tpm::ResponseCode> bring_in(Object& object);
  Result<tpm::ResponseCode> bring_in_session(std::uint32_t handle);

  // Saves one loaded object or session. ObjectMemory, SessionMemory: none may leave.
  Result<tpm::ResponseCode> make_object_room();
  Result<tpm::ResponseCode> make_session_room();
  // TPM_RC_CONTEXT_GAP: saves the oldest saved session anew.
  Result<tpm::ResponseCode> narrow_gap();

  // The TPM has made or loaded an object at `real`.
  Object& add(Space& owner, RealHandle real);
  // Erases it; the TPM no longer has it, or never will again.
  void drop(Object& object);
  // Takes it from the TPM and erases it.
  Result<> flush(Object& object);
  Result<> flush(const Session& session);
  // The same, to give its slot to somebody else.
  Result<> evict(const Session& session);
  // After a command that may have flushed anything: drops the objects that are gone.
  Result<> recheck(Space& space);
  // The client has saved the session.
  void saved_by_client(Session& session, BytesView context);

  // A handle as good as `handle` that names nothing in the TPM, so that the TPM itself answers as it does for
  // an object or session that is not there.
  Result<std::uint32_t> absent_object(std::uint32_t handle);
  std::uint32_t absent_session(std::uint32_t handle) const;
  // The same for a slot that is not active at all; nothing if all are.
  std::optional<std::uint32_t> inactive_session(std::uint32_t handle) const;

  std::uint64_t swaps() const noexcept { return swaps_; }
  std::uint64_t evictions() const noexcept { return evictions_; }

 private:
  Result<tpm::ResponseCode> save(Object& object);
  Result<tpm::ResponseCode> save(Session& session);
  Result<> recheck(Object& object);
  void settle(Object& object, RealHandle real);
  template <class Context>
  bool may_leave(const Context& context) const noexcept;
  template <class Context>
  bool leaves_before(const Context& a, const Context& b) const noexcept;

  InternalCommands& tpm_;
  SessionTable& sessions_;
  Capacity capacity_;
  std::vector<Object*> slots_;  // by the index of the real handle
  const Space* space_ = nullptr;
  std::uint64_t tick_ = 0;
  std::uint64_t order_ = 0;
  std::uint64_t swaps_ = 0;
  std::uint64_t evictions_ = 0;
};

}  // namespace vtpm::space
