// SPDX-License-Identifier: Apache-2.0
// CpuTime: what a command has cost the machine. The time that passed is not it: neighbours were busy, the
// disk synced, somebody stopped the engine.
//
// The clock of the thread's CPU time is a system call, as dear as some commands. So it is read after commands
// that took long, and before one only if it was not read just now: short commands are charged the time that
// passed, and long ones at most kFresh too much, and never more than the time that passed.
#pragma once

#include "daemon/engine/fair_queue.h"

#include <time.h>

#include <algorithm>

namespace vtpm::engine {

class CpuTime {
 public:
  using Time = FairQueue::Time;
  using Duration = FairQueue::Duration;

  static constexpr Duration kLong = std::chrono::milliseconds(1);
  static constexpr Duration kFresh = std::chrono::microseconds(250);

  // A command begins.
  void begin(Time now) noexcept {
    if (now - read_at_ > kFresh) read(now);
  }
  // It has ended: what it cost.
  Duration cost(Time start, Time end) noexcept {
    const Duration wall = end - start;
    if (wall < kLong) return wall;
    const Duration before = used_;
    read(end);
    return std::min(wall, used_ - before);
  }

 private:
  void read(Time now) noexcept {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    used_ = std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
    read_at_ = now;
  }

  Duration used_{0};
  Time read_at_{};
};

}  // namespace vtpm::engine
