// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/fair_queue.h"

#include <algorithm>

namespace vtpm::engine {

FairQueue::Duration FairQueue::idle_for(const Entry& entry, Time now) const {
  if (!entry.last_end) return Duration::max();
  if (*entry.last_end <= last_start_) return (last_start_ - *entry.last_end) + (now - last_end_);
  return now - *entry.last_end;
}

bool FairQueue::active(const Entry& entry, Time now) const {
  return entry.queued || idle_for(entry, now) < kIdle;
}

// The least virtual runtime of the active spaces but one.
std::optional<FairQueue::Duration> FairQueue::least_of_others(const Entry& but, Time now) const {
  std::optional<Duration> least;
  for (const auto& [space, entry] : entries_) {
    if (&entry == &but || !active(entry, now)) continue;
    least = std::min(least.value_or(entry.used), entry.used);
  }
  return least;
}

void FairQueue::push(space::SpaceId space, Time now) {
  auto& entry = entries_[space];
  if (!active(entry, now)) {
    const auto others = least_of_others(entry, now);
    if (!others) closed_ = {};  // nobody is there who has missed anything
    const auto least = others.value_or(entry.used);
    const auto idle = idle_for(entry, now);
    if (!entry.last_end)
      entry.used = least + debt(closed_, least, now);
    else  // No credit from the past; and what it had too much, others have had time to make up for.
      entry.used = entry.used - least > idle ? entry.used - idle : least;
  }
  entry.queued = true;
  entry.not_before.reset();
  entry.held_until.reset();
}

void FairQueue::remove(space::SpaceId space) {
  const auto found = entries_.find(space);
  if (found != entries_.end()) found->second.queued = false;
}

void FairQueue::postpone(space::SpaceId space, Time until) {
  const auto found = entries_.find(space);
  if (found != entries_.end()) found->second.not_before = until;
}

void FairQueue::completed(space::SpaceId space, Time start, Time end) {
  for (auto& [id, entry] : entries_)
    entry.not_before.reset();
  auto& entry = entries_[space];
  entry.queued = false;
  entry.used += end - start;
  entry.last_end = last_end_ = end;
  last_start_ = start;
}

void FairQueue::forget(space::SpaceId space, Time now) {
  const auto found = entries_.find(space);
  if (found == entries_.end()) return;
  const Entry& entry = found->second;
  if (const auto least = least_of_others(entry, now)) {
    Entry closed;
    closed.used = std::min(entry.used, *least + kMostDebt);
    closed.last_end = entry.last_end;
    if (debt(closed, *least, now) > debt(closed_, *least, now)) closed_ = closed;
  }
  entries_.erase(found);
}

// How far a closed space is still ahead of `least`.
FairQueue::Duration FairQueue::debt(const Entry& closed, Duration least, Time now) const {
  const auto idle = idle_for(closed, now);
  if (idle >= kMostDebt) return Duration::zero();
  const auto used = idle < kIdle ? closed.used : closed.used - idle;
  return std::clamp(used - least, Duration::zero(), kMostDebt);
}

FairQueue::Choice FairQueue::choose(Time now) {
  std::optional<space::SpaceId> first;
  Entry* entry_of_first = nullptr;
  std::optional<Time> earliest;
  for (auto& [space, entry] : entries_) {
    if (!entry.queued) continue;
    if (entry.not_before && *entry.not_before > now) {
      earliest = std::min(earliest.value_or(*entry.not_before), *entry.not_before);
    } else if (!first || entry.used < entry_of_first->used) {
      first = space;
      entry_of_first = &entry;
    }
  }
  if (!first) return {{}, earliest};
  const auto until = hold_back(*entry_of_first, now);
  if (!until) return {first, {}};
  return {{}, std::min(earliest.value_or(*until), *until)};
}

// Until when the space waits for one that is behind it and thinks; nothing when it need not.
std::optional<FairQueue::Time> FairQueue::hold_back(Entry& first, Time now) const {
  std::optional<Time> until;
  Duration lead{0};
  for (const auto& [space, entry] : entries_) {
    const auto thinks = idle_for(entry, now);
    if (entry.queued || thinks >= kThink || entry.used + kFarAhead >= first.used) continue;
    until = std::max(until.value_or(Time::min()), now + (kThink - thinks));
    lead = std::max(lead, first.used - entry.used);
  }
  if (!until) return {};
  // Not longer in all than it is ahead, and then it is forgiven: what a client does not use of its time while
  // it may costs the others no more.
  if (!first.held_until) first.held_until = now + lead;
  if (now >= *first.held_until) {
    first.used -= lead - kFarAhead;
    return {};
  }
  return std::min(*until, *first.held_until);
}

bool FairQueue::contended(Time now) const {
  if (entries_.size() < 2) return false;
  std::size_t count = 0;
  for (const auto& [space, entry] : entries_)
    if (active(entry, now)) ++count;
  return count > 1;
}

}  // namespace vtpm::engine
