// SPDX-License-Identifier: Apache-2.0
// What tenants may use, with a clock of our own.
#include "daemon/engine/quota.h"

#include "tests/support/tpm_wire.h"

#include <catch2/catch.hpp>

#include <array>

using namespace vtpm;
using namespace vtpm::engine;
using namespace std::chrono_literals;
namespace wire = vtpm::test::wire;

namespace {

constexpr FairQueue::Time kStart{1000s};

// How many commands of `cost` run in a time, given one after the other as soon as the quota permits.
std::size_t commands_within(Quota& quota, FairQueue::Duration cost, FairQueue::Duration length) {
  std::size_t count = 0;
  for (auto now = std::max(kStart, quota.ready_at()); now < kStart + length; ++count) {
    quota.ran(cost, now + cost);
    now = std::max(now + cost, quota.ready_at());
  }
  return count;
}

ipc::EngineLimits limits(std::uint64_t commands, std::uint64_t burst, std::uint64_t busy = 0,
                         std::uint64_t busy_burst = 1) {
  ipc::EngineLimits out;
  out.commands_per_second = commands;
  out.command_burst = burst;
  out.busy_us_per_second = busy;
  out.busy_burst_us = busy_burst;
  return out;
}

Bytes define_space(std::size_t auth, std::size_t policy, std::uint16_t data) {
  Bytes area = wire::u32s(0x01800001U);
  put_be<std::uint16_t>(area, 0x000b);
  put(area, wire::u32s(0x00020002U));
  put(area, wire::sized(Bytes(policy)));
  put_be(area, data);
  return wire::command(0x12a, {wire::kOwner}, {{}},
                       wire::join({wire::sized(Bytes(auth)), wire::sized(area)}));
}

}  // namespace

TEST_CASE("bucket: after a rest there is a burst, then the rate") {
  TokenBucket bucket(10, 3);
  for (int i = 0; i < 3; ++i) {
    CHECK(bucket.ready_at() <= kStart);
    bucket.take(1, kStart);
  }
  CHECK(bucket.ready_at() == kStart + 100ms);
  bucket.take(1, kStart + 100ms);
  CHECK(bucket.ready_at() == kStart + 200ms);
  // A rest fills it, but not beyond the burst.
  for (int i = 0; i < 3; ++i) {
    CHECK(bucket.ready_at() <= kStart + 1h);
    bucket.take(1, kStart + 1h);
  }
  CHECK(bucket.ready_at() == kStart + 1h + 100ms);
}

TEST_CASE("bucket: who takes more than there is pays the debt before the next, and no more than that") {
  TokenBucket bucket(1000, 5);
  bucket.take(105, kStart);
  CHECK(bucket.ready_at() == kStart + 101ms);
}

TEST_CASE("bucket: the largest values that the limits permit do not overflow") {
  const auto& fields = ipc::kLimitFields;
  ipc::EngineLimits most, slowest;
  for (const auto& field : fields) {
    most.*field.value = field.most;
    slowest.*field.value = field.most;
  }
  slowest.commands_per_second = slowest.busy_us_per_second = 1;
  for (const auto& values : {most, slowest}) {
    Quota quota;
    quota.set(values);
    CHECK(quota.ready_at() <= kStart);
    quota.ran(1min, kStart + 1min);
    CHECK(quota.ready_at() <= kStart + 1min);  // less than an hour's burst
    quota.ran(3h - 1min, kStart + 3h);
    CHECK(quota.ready_at() >= kStart);
    CHECK(quota.ready_at() <= kStart + 24h * 366 * 127);
  }
}

TEST_CASE("quota: without rates there is no wait") {
  Quota quota;
  CHECK(commands_within(quota, 1ms, 1s) == 1000);
  quota.set(limits(0, 1));
  CHECK(commands_within(quota, 1ms, 1s) == 1000);
}

TEST_CASE("quota: commands are held to their rate, whatever they cost") {
  Quota quota;
  quota.set(limits(50, 10));
  const auto cost = GENERATE(as<FairQueue::Duration>{}, 1us, 5ms);
  const auto count = commands_within(quota, cost, 10s);
  CHECK(count >= 50 * 10);
  CHECK(count <= 50 * 10 + 10);
}

TEST_CASE("quota: TPM time is held to its rate, whatever the commands") {
  Quota quota;
  quota.set(limits(0, 1, 100'000, 50'000));
  const auto cost = GENERATE(as<FairQueue::Duration>{}, 10us, 1ms, 70ms);
  const auto used = static_cast<std::int64_t>(commands_within(quota, cost, 60s)) * cost;
  CHECK(used >= 6s);
  CHECK(used <= 6s + 50ms + cost);
}

TEST_CASE("quota: a long command leaves a debt that is as long as it was") {
  Quota quota;
  quota.set(limits(0, 1, 500'000, 1000));
  quota.ran(2s, kStart + 2s);
  CHECK(quota.ready_at() > kStart + 2s + 3990ms);
  CHECK(quota.ready_at() < kStart + 2s + 4s);
}

TEST_CASE("quota: under it the clients of an instance are served as fairly as without") {
  Quota quota;
  quota.set(limits(20, 1));
  FairQueue queue;
  std::array<int, 3> done{};
  std::array<bool, 3> waits{};
  // Each gives its next command a moment after the last response; the third one's are a hundred times longer.
  const std::array<FairQueue::Duration, 3> costs = {100us, 100us, 10ms};
  for (auto now = kStart; now < kStart + 60s;) {
    for (std::uint64_t i = 0; i < waits.size(); ++i)
      if (!std::exchange(waits[i], true)) queue.push(space::SpaceId{i}, now);
    now = std::max(now, quota.ready_at());
    const auto choice = queue.choose(now);
    if (!choice.run) {
      REQUIRE(choice.later);
      now = std::max(now + 1us, *choice.later);
      continue;
    }
    const auto chosen = static_cast<std::size_t>(*choice.run);
    const auto start = now;
    now += costs[chosen];
    queue.completed(*choice.run, start, now);
    quota.ran(now - start, now);
    ++done[chosen];
    waits[chosen] = false;
  }
  INFO(done[0] << " " << done[1] << " " << done[2]);
  CHECK(done[0] + done[1] + done[2] >= 20 * 59);
  CHECK(std::abs(done[0] - done[1]) <= 2);
  CHECK(done[2] >= 5);  // its hundredth part
  CHECK(done[2] < done[0] / 10);
}

TEST_CASE("growth: an NV index takes what its command says, other commands nothing") {
  const auto plain = permanent_growth(define_space(0, 0, 100));
  CHECK(plain >= 100);
  CHECK(permanent_growth(define_space(20, 32, 100)) == plain + 52);
  CHECK(permanent_growth(define_space(0, 0, 2048)) == plain + 1948);
  CHECK(permanent_growth(wire::get_random()) == 0);
  CHECK(permanent_growth(wire::create_primary(wire::kOwner, "key")) == 0);
  CHECK(permanent_growth(wire::evict_control(0x80000000, 0x81000100)) > 0);
  CHECK(permanent_growth(wire::evict_control(0x81000100, 0x81000100)) == 0);
}

TEST_CASE("growth: a command that is cut off anywhere is left to the TPM") {
  for (const Bytes& whole : {define_space(20, 32, 100), wire::evict_control(0x80000000, 0x81000100)})
    for (std::size_t size = tpm::kHeaderSize; size < whole.size(); ++size) {
      const auto growth = permanent_growth(BytesView(whole).first(size));
      CHECK((growth == 0 || growth == permanent_growth(whole)));
    }
}

// Issue 3, found by the differential test: TPM_RC_NV_SPACE, for an index of 60 kB that nobody had asked for.
TEST_CASE("growth: a command whose sizes are wrong is left to the TPM") {
  Bytes command = define_space(5, 0, 100);
  constexpr std::size_t kAreaSize = tpm::kHeaderSize + 4 + 3;  // of the authorization area, the last byte
  REQUIRE(permanent_growth(command) > 0);
  --command[kAreaSize];
  CHECK(permanent_growth(command) == 0);
  command[kAreaSize] = static_cast<std::uint8_t>(command[kAreaSize] + 2);
  CHECK(permanent_growth(command) == 0);
  CHECK(permanent_growth(wire::join({define_space(5, 0, 100), Bytes(1)})) == 0);
}

TEST_CASE("quota: what would make the state too large is refused, what makes it smaller is not") {
  Quota quota;
  CHECK_FALSE(quota.exceeds_nv(define_space(0, 0, 2048), 1 << 20));
  ipc::EngineLimits values;
  values.nv_bytes = 10'000;
  quota.set(values);
  const auto growth = permanent_growth(define_space(0, 0, 1000));
  CHECK_FALSE(quota.exceeds_nv(define_space(0, 0, 1000), 10'000 - growth));
  CHECK(quota.exceeds_nv(define_space(0, 0, 1000), 10'001 - growth));
  CHECK_FALSE(quota.exceeds_nv(wire::evict_control(0x81000100, 0x81000100), 20'000));
  CHECK_FALSE(quota.exceeds_nv(wire::get_random(), 20'000));
}
