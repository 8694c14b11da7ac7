// SPDX-License-Identifier: Apache-2.0
// The TPM's active sessions: whose each is, and where it is.
//
// A session's handle stands as its Name in the hashes that authorizations sign (Part 1, "Names"), so it is
// never translated: the client's handle is the TPM's. A saved session keeps its slot among the active ones,
// so its handle survives swaps too.
#pragma once

#include "space/space.h"

namespace vtpm::space {

struct Session {
  // Saved contexts are ordered: the TPM's context counter may not run too far ahead of the oldest.
  struct Context {
    std::uint64_t order;
    Bytes bytes;  // the TPMS_CONTEXT
  };
  struct Loaded {};
  struct Swapped : Context {};  // by us
  // By its client. The context that the client has goes stale when ours is renewed to narrow the gap; it then
  // stands for ours when the client loads it. Empty: saved before this resource manager was there.
  struct Saved : Context {
    Bytes given_out;
  };

  std::uint32_t handle;
  Space*
      owner;  // nullptr: an orphan, whose client has saved it and gone; whoever has the context may load it
  Clock::time_point born;
  std::uint64_t used;  // the tick of the last command that named it
  std::variant<Loaded, Swapped, Saved> place;

  bool loaded() const noexcept { return std::holds_alternative<Loaded>(place); }
  const Swapped* swapped() const noexcept { return std::get_if<Swapped>(&place); }
  const Saved* saved_by_client() const noexcept { return std::get_if<Saved>(&place); }
  // nullptr while it is loaded.
  Context* context() noexcept {
    if (auto* by_us = std::get_if<Swapped>(&place)) return by_us;
    return std::get_if<Saved>(&place);
  }
};

class SessionTable {
 public:
  Session* find(std::uint32_t handle) {
    const auto found = sessions_.find(slot_of(handle));
    return found == sessions_.end() ? nullptr : &found->second;
  }
  const Session* find(std::uint32_t handle) const { return const_cast<SessionTable*>(this)->find(handle); }
  // The TPM gave the handle out: what was known of its slot is of the past.
  Session& put(const Session& session) {
    return sessions_.insert_or_assign(slot_of(session.handle), session).first->second;
  }
  void erase(std::uint32_t handle) { sessions_.erase(slot_of(handle)); }
  void clear() noexcept { sessions_.clear(); }

  std::size_t size() const noexcept { return sessions_.size(); }
  std::size_t count(const Space* owner) const {
    std::size_t n = 0;
    for (const auto& [slot, session] : sessions_)
      n += session.owner == owner ? 1 : 0;
    return n;
  }

  auto begin() noexcept { return sessions_.begin(); }
  auto end() noexcept { return sessions_.end(); }
  auto begin() const noexcept { return sessions_.begin(); }
  auto end() const noexcept { return sessions_.end(); }

 private:
  std::map<SessionSlot, Session> sessions_;
};

}  // namespace vtpm::space
