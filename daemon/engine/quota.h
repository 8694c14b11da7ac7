// SPDX-License-Identifier: Apache-2.0
// Quota: what an instance's tenants, all together, may use of the machine. Pure: it is told the time and
// waits for nothing.
#pragma once

#include "daemon/engine/fair_queue.h"
#include "daemon/ipc/engine_limits.h"

#include <vtpm/os/bytes.h>

#include <algorithm>

namespace vtpm::engine {

// Tokens that come at a rate, up to a burst. Taking is possible while there is at least one, and may take
// more than there are: the debt is paid before the next.
//
// What is kept is the time at which the bucket will be full again (the "generic cell rate algorithm"), so
// that nothing has to be done as time passes.
class TokenBucket {
 public:
  using Time = FairQueue::Time;
  using Duration = FairQueue::Duration;

  // Full, without end: no rate.
  TokenBucket() = default;
  // Full. `per_second` 0: without end. `burst`: at least 1.
  TokenBucket(std::uint64_t per_second, std::uint64_t burst);

  // From when on there is at least one token; the past, when there is.
  Time ready_at() const noexcept { return full_at_ - slack_; }
  void take(std::uint64_t tokens, Time now) noexcept {
    if (ns_per_token_ == 0) return;
    if (full_at_ < now) full_at_ = now;
    full_at_ += cost(tokens);
  }

 private:
  Duration cost(std::uint64_t tokens) const noexcept {
    return Duration(
        static_cast<Duration::rep>(std::min(static_cast<double>(tokens) * ns_per_token_, kLongest)));
  }

  // 126 years: above every burst, and twice this is below what a Duration holds.
  static constexpr double kLongest = 4e18;

  double ns_per_token_ = 0;
  Duration slack_{0};  // as long as `burst` tokens but one take to come
  Time full_at_{};
};

// By how many bytes a command of a tenant may make the permanent state grow, at most; 0 for those that do
// not.
//
// libtpms writes its permanent state as one blob (NVMarshal.c, PERSISTENT_ALL_Marshal). What varies in it is
// USER_NVRAM: for each NV index some 50 bytes, its policy and its auth value, and all of its data, from
// TPM2_NV_DefineSpace on, written or not; for each persistent object the marshalled OBJECT (0.5 to 1.9 kB: an
// RSA key has its primes in it). Orderly indices have their data in ORDERLY_RAM instead (at most 512 bytes in
// all). So NV_DefineSpace and EvictControl alone make it larger by more than the length of an auth value, and
// for the first the command says by how much. For the second only the object would: the largest is assumed.
std::size_t permanent_growth(BytesView command) noexcept;

class Quota {
 public:
  using Time = FairQueue::Time;
  using Duration = FairQueue::Duration;

  // From now on. Both buckets are full.
  void set(const ipc::EngineLimits& limits);

  // When the next command may run, as far as the rates go.
  Time ready_at() const noexcept {
    const Time commands = commands_.ready_at(), busy = busy_.ready_at();
    return commands < busy ? busy : commands;
  }
  // One has run, and cost so much CPU time. A dear one leaves a debt, which all wait for: it was not known
  // beforehand.
  void ran(Duration cost, Time end) noexcept {
    commands_.take(1, end);
    busy_.take(static_cast<std::uint64_t>(cost.count()), end);
  }
  // Whether a command would make a permanent state of that size too large.
  bool exceeds_nv(BytesView command, std::size_t permanent_size) const noexcept;

 private:
  TokenBucket commands_;
  TokenBucket busy_;  // ns
  std::size_t nv_bytes_ = 0;
};

}  // namespace vtpm::engine
