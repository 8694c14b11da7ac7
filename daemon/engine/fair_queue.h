// SPDX-License-Identifier: Apache-2.0
// FairQueue: whose command runs next. Pure: it is told the time and runs nothing.
//
// Each space has a virtual runtime, the time that the TPM has worked for it, and of the spaces that have a
// command the one with the least is served. But a client thinks between its commands: whoever only looks at
// the queue gives the TPM to the client with the long commands whenever the other one reads a response. So a
// space that is far ahead of another is held back for a moment when that other one was served just now.
//
// A client that opens a new space for each command is not to get more than one that keeps its space. So a
// new space begins as far ahead of the others as the one that is most so of those that were closed, and idle
// time forgives that, too: all that open anew share what one has. An honest newcomer pays for it when spaces
// were closed that were ahead: each of the others that are active goes before it for as long as those were
// ahead, less the time since, and for kMostDebt at most. Where nobody left a debt it pays nothing.
//
// A lead is forgiven by idle time as fast as the others make up for it: n of them take n times as long. Where
// nobody else is active all begin as equals.
#pragma once

#include <vtpm/space/resource_manager.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>

namespace vtpm::engine {

class FairQueue {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  using Duration = Clock::duration;

  // A space whose last command ended longer ago is idle: it neither saves up credit nor keeps others back.
  static constexpr Duration kIdle = std::chrono::milliseconds(10);
  // How long a client may think while others that are ahead by more than kFarAhead are held back for it.
  static constexpr Duration kThink = std::chrono::milliseconds(1);
  static constexpr Duration kFarAhead = std::chrono::milliseconds(10);
  // What a new space starts behind at most: a client whose commands are not longer gains nothing by opening
  // anew.
  static constexpr Duration kMostDebt = std::chrono::seconds(1);

  // The space has a command now. One at a time.
  void push(space::SpaceId space, Time now);
  // Its command is gone without having run.
  void remove(space::SpaceId space);
  // Its command could not run: try again at `until`, or when another space's command has run.
  void postpone(space::SpaceId space, Time until);
  // Its command has run, and took the TPM from `start` to `end`.
  void completed(space::SpaceId space, Time start, Time end);
  // The space is closed.
  void forget(space::SpaceId space, Time now);

  // One of them, or neither when no space has a command.
  struct Choice {
    std::optional<space::SpaceId> run;  // whose turn it is
    std::optional<Time> later;          // nobody's: ask again then, or after a call above
  };
  Choice choose(Time now);

  // Whether more than one space is active, so that it matters who else has a command. Cheap.
  bool contended(Time now) const;

 private:
  struct Entry {
    Duration used{0};  // virtual runtime
    bool queued = false;
    std::uint64_t order = 0;  // of the pushes: which command came first
    std::optional<Time> not_before;
    std::optional<Time> last_end;    // of its last command
    std::optional<Time> held_until;  // its present command is not held back any longer
  };

  // Since its last command ended, without the time of another's command since: meanwhile it could not be
  // served, nor could anybody see that it has a command.
  Duration idle_for(const Entry& entry, Time now) const;
  bool active(const Entry& entry, Time now) const;
  // Of the active spaces but one: how many, and the least virtual runtime.
  struct Others {
    int active = 0;
    Duration least{0};
  };
  Others others(const Entry& but, Time now) const;
  Duration most() const;
  Duration forgiven(const Entry& entry, const Others& others, Time now) const;
  Duration debt(const Entry& closed, const Others& others, Time now) const;
  static bool goes_before(const Entry& one, const Entry& other) noexcept;
  std::optional<Time> hold_back(Entry& first, Time now) const;

  std::map<space::SpaceId, Entry> entries_;
  std::uint64_t pushed_ = 0;
  Entry closed_;  // of those that were closed, the one with the most debt
  // Of the last command that ran.
  Time last_start_{};
  Time last_end_{};
};

}  // namespace vtpm::engine
