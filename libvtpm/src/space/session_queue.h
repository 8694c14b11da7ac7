// SPDX-License-Identifier: Apache-2.0
// Who gets the next active session when all are taken.
//
// Waiters are served first come first served. A session that is free goes to the first; one that is not is
// taken from somebody once it is two seconds old, the oldest first. Spaces over their fair share (all active
// sessions divided by the spaces that hold or want one) lose first, so that a hoarder starves nobody; where
// nobody is over it, a space that has its share already pays with a session of its own. Sessions without an
// owner count as those of one more space.
//
// So N spaces that all hold sessions and want another get it within 2 s x (N / active sessions + 1).
#pragma once

#include "space/session_table.h"

#include <vector>

namespace vtpm::space {

inline constexpr std::chrono::seconds kSessionMinimumAge{2};

class SessionQueue {
 public:
  void join(const Space& space);
  void leave(const Space& space);
  bool empty() const noexcept { return waiting_.empty(); }
  // How many are before it; all, for one that has not joined.
  std::size_t position(const Space& space) const noexcept;
  const std::vector<const Space*>& waiting() const noexcept { return waiting_; }

 private:
  std::vector<const Space*> waiting_;
};

// What a space that wants one more active session must do: nothing, take this session from its owner first,
// or wait.
struct Admitted {};
struct Evict {
  std::uint32_t session;
};
using Admission = std::variant<Admitted, Evict, SessionWait>;

// `tick` as in Session::used: sessions that the command itself names are no victims.
Admission admit(const SessionTable& sessions, const SessionQueue& queue, const Space& space,
                std::size_t active_sessions, std::uint64_t tick, Clock::time_point now);

}  // namespace vtpm::space
