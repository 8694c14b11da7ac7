// SPDX-License-Identifier: Apache-2.0
// HaltPoll: poll(2) that first looks for a little while without sleeping, when that has been worth it.
//
// A client of a TPM makes five requests of its device file in a row (write, poll, read, poll, read), each
// within microseconds of the last answer. Waking a sleeping engine on another processor costs more than all
// the rest (23 of 37 us a request in the 2-processor machine that this was measured on: GetRandom 247 us
// without, 80 us with it). The idea is that of KVM's halt_poll_ns, and so are grow and shrink: an engine that
// nobody uses never spins.
#pragma once

#include <poll.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <span>

namespace vtpm::engine {

class HaltPoll {
 public:
  using Clock = std::chrono::steady_clock;

  // As poll(2), until a time at the latest (to the millisecond after it), if there is one: the number of
  // ready descriptors, or -1 and errno.
  int wait(std::span<pollfd> polled, std::optional<Clock::time_point> until) {
    const auto start = Clock::now();
    if (until && *until <= start) return ::poll(polled.data(), polled.size(), 0);
    if (short_waits_ >= kWorthwhile) {
      do {
        if (const int n = ::poll(polled.data(), polled.size(), 0); n != 0) return n;
        ::sched_yield();  // the client may be waiting for this very processor
      } while (Clock::now() - start < kWindow && (!until || Clock::now() < *until));
      short_waits_ = 0;  // nobody came in time: sleep at once until they do again
    }
    const int n = ::poll(polled.data(), polled.size(), until ? milliseconds(*until - start) : -1);
    short_waits_ = Clock::now() - start < kWindow ? short_waits_ + 1 : 0;
    return n;
  }

 private:
  static int milliseconds(Clock::duration wait) {
    return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(std::min(wait, kLongest)).count());
  }
  static constexpr Clock::duration kLongest = std::chrono::hours(1);  // the caller asks again
  static constexpr std::chrono::microseconds kWindow{50};
  static constexpr unsigned kWorthwhile = 3;  // waits in a row that would have ended within the window

  unsigned short_waits_ = 0;
};

}  // namespace vtpm::engine
