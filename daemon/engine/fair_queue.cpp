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

FairQueue::Others FairQueue::others(const Entry& but, Time now) const {
  Others others;
  for (const auto& [space, entry] : entries_) {
    if (&entry == &but || !active(entry, now)) continue;
    others.least = others.active == 0 ? entry.used : std::min(others.least, entry.used);
    ++others.active;
  }
  return others;
}

// What the one that has used most has used.
FairQueue::Duration FairQueue::most() const {
  Duration most{0};
  for (const auto& [space, entry] : entries_)
    most = std::max(most, entry.used);
  return most;
}

// Each of those that are active was to have as much before: one that is ahead of n is so for n times as long.
FairQueue::Duration FairQueue::forgiven(const Entry& entry, const Others& others, Time now) const {
  return std::max(entry.used - idle_for(entry, now) / others.active, others.least);
}

void FairQueue::push(space::SpaceId space, Time now) {
  auto& entry = entries_[space];
  if (!active(entry, now)) {
    const Others others = this->others(entry, now);
    if (others.active == 0) {
      entry.used = most();  // nobody is there who has missed anything: all begin as equals
      closed_ = {};
    } else if (!entry.last_end) {
      entry.used = others.least + debt(closed_, others, now);
    } else {
      entry.used = forgiven(entry, others, now);  // no credit from the past
    }
  }
  entry.order = ++pushed_;
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
  if (const Others others = this->others(entry, now); others.active > 0) {
    Entry closed;
    closed.used = std::min(entry.used, others.least + kMostDebt);
    closed.last_end = entry.last_end;
    if (debt(closed, others, now) > debt(closed_, others, now)) closed_ = closed;
  }
  entries_.erase(found);
}

// How far a closed space is still ahead.
FairQueue::Duration FairQueue::debt(const Entry& closed, const Others& others, Time now) const {
  if (!closed.last_end) return Duration::zero();
  const Duration used = active(closed, now) ? closed.used : forgiven(closed, others, now);
  return std::clamp(used - others.least, Duration::zero(), kMostDebt);
}

bool FairQueue::goes_before(const Entry& one, const Entry& other) noexcept {
  return one.used != other.used ? one.used < other.used : one.order < other.order;
}

FairQueue::Choice FairQueue::choose(Time now) {
  std::optional<space::SpaceId> first;
  Entry* entry_of_first = nullptr;
  std::optional<Time> earliest;
  for (auto& [space, entry] : entries_) {
    if (!entry.queued) continue;
    if (entry.not_before && *entry.not_before > now) {
      earliest = std::min(earliest.value_or(*entry.not_before), *entry.not_before);
    } else if (!first || goes_before(entry, *entry_of_first)) {
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
