// SPDX-License-Identifier: Apache-2.0
#include "space/session_queue.h"

#include <algorithm>

namespace vtpm::space {
namespace {

// How many sessions each space holds; also those that hold none and want one.
using Holdings = std::map<const Space*, std::size_t>;

Holdings holdings(const SessionTable& sessions, const SessionQueue& queue, const Space& space) {
  Holdings held;
  for (const auto& [slot, session] : sessions)
    ++held[session.owner];
  for (const Space* waiting : queue.waiting())
    held.try_emplace(waiting, 0);
  held.try_emplace(&space, 0);
  return held;
}

// The sessions that may be taken for `space`, oldest first.
std::vector<const Session*> victims(const SessionTable& sessions, const Holdings& held, const Space& space,
                                    std::size_t share, std::uint64_t tick) {
  const bool somebody_over =
      std::ranges::any_of(held, [share](const auto& holding) { return holding.second > share; });
  const bool has_its_share = held.at(&space) >= share;
  std::vector<const Session*> found;
  for (const auto& [slot, session] : sessions) {
    const bool pays = somebody_over   ? held.at(session.owner) > share
                      : has_its_share ? session.owner == &space
                                      : true;
    if (pays && session.used != tick) found.push_back(&session);
  }
  std::ranges::stable_sort(found, {}, &Session::born);
  return found;
}

}  // namespace

void SessionQueue::join(const Space& space) {
  if (std::ranges::find(waiting_, &space) == waiting_.end()) waiting_.push_back(&space);
}

void SessionQueue::leave(const Space& space) {
  std::erase(waiting_, &space);
}

std::size_t SessionQueue::position(const Space& space) const noexcept {
  return static_cast<std::size_t>(std::ranges::find(waiting_, &space) - waiting_.begin());
}

Admission admit(const SessionTable& sessions, const SessionQueue& queue, const Space& space,
                std::size_t active_sessions, std::uint64_t tick, Clock::time_point now) {
  const std::size_t free = active_sessions - std::min(active_sessions, sessions.size());
  const std::size_t needed = queue.position(space) + 1;  // those before it have the first choice
  if (needed <= free) return Admitted{};

  const Holdings held = holdings(sessions, queue, space);
  const std::size_t share = std::max<std::size_t>(1, active_sessions / held.size());
  const auto candidates = victims(sessions, held, space, share, tick);
  const std::size_t last = needed - free - 1;
  if (last >= candidates.size()) return SessionWait{now + kSessionMinimumAge};
  const Clock::time_point due = candidates[last]->born + kSessionMinimumAge;
  if (due > now) return SessionWait{due};
  return Evict{candidates.front()->handle};
}

}  // namespace vtpm::space
