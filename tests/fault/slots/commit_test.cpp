// SPDX-License-Identifier: Apache-2.0
// Each system call of a commit fails in turn, in each way that it can: what is on disk afterwards is the old
// state or the new one, the caller knows which, and a later commit succeeds.
#include "tests/fault/slots/faulty_disk.h"
#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::engine;
using namespace vtpm::test;

namespace {

Bytes state(std::uint8_t number) {
  return Bytes(3000U + 7U * number, number);
}

// The number of the state that a new engine would continue from; 0: it would refuse.
int found(Bytes a, Bytes b, std::uint64_t least = 0) {
  auto store = SlotStore::open(test_owner(), least, frozen(std::move(a)), frozen(std::move(b)));
  if (!store) return 0;
  const auto loaded = store->take_loaded();
  if (!loaded || loaded->permanent.empty()) return 0;
  const std::uint8_t number = loaded->permanent[0];
  return loaded->permanent == state(number) ? number : 0;
}

// After two commits, states 1 and 2.
struct Bench {
  FaultyDisk disk;
  SlotStore store = SlotStore::open(test_owner(), 0, disk.open(0), disk.open(1)).value();
  Bench() {
    for (const std::uint8_t number : {std::uint8_t{1}, std::uint8_t{2}})
      if (const auto committed = store.commit(0, state(number)); !committed) FAIL(committed.error().context);
  }
  int in_cache() const { return found(disk.cached(0), disk.cached(1)); }
  int on_disk() const { return found(disk.stored(0), disk.stored(1)); }
};

const std::vector<Fault> kWriteFaults = {Fault::None,       Fault::NoSpace,     Fault::WriteError,
                                         Fault::ShortWrite, Fault::HalfWritten, Fault::WroteZero};
const std::vector<Fault> kSyncFaults = {Fault::None, Fault::SyncLost, Fault::SyncHalf, Fault::SyncAll};

}  // namespace

TEST_CASE("commit: it writes once and syncs once") {
  Bench bench;
  const auto before = bench.disk.calls();
  REQUIRE(bench.store.commit(0, state(3)));
  CHECK(bench.disk.calls() == before + 2);
  CHECK(bench.store.sequence() == 3);
  CHECK(bench.on_disk() == 3);
}

TEST_CASE("commit: one call fails: the old state if and only if an error was told; a later commit succeeds") {
  for (const Fault write : kWriteFaults) {
    for (const Fault sync : kSyncFaults) {
      INFO("pwrite " << static_cast<int>(write) << ", fdatasync " << static_cast<int>(sync));
      Bench bench;
      std::deque<Fault> plan{write};
      if (write == Fault::ShortWrite) plan.push_back(Fault::None);  // the rest of it
      plan.push_back(sync);
      // A write that fails is followed by the calls that take it back.
      if (write != Fault::None && write != Fault::ShortWrite) plan.pop_back();
      bench.disk.plan(plan);
      const bool committed = bench.store.commit(0, state(3)).has_value();
      CHECK(committed == ((write == Fault::None || write == Fault::ShortWrite) && sync == Fault::None));
      CHECK(bench.store.sequence() == (committed ? 3 : 2));
      CHECK(bench.on_disk() == (committed ? 3 : 2));
      CHECK(bench.in_cache() == (committed ? 3 : 2));
      bench.disk.repair();
      REQUIRE(bench.store.commit(0, state(4)));
      CHECK(bench.on_disk() == 4);
      CHECK(bench.in_cache() == 4);
      REQUIRE(bench.store.commit(0, state(5)));
      CHECK(bench.on_disk() == 5);
    }
  }
}

TEST_CASE("commit: it fails again and again, and the only valid slot is never written over") {
  Bench bench;
  for (int i = 0; i < 20; ++i) {
    bench.disk.plan({i % 2 == 0 ? Fault::HalfWritten : Fault::None, Fault::SyncHalf});
    CHECK_FALSE(bench.store.commit(0, state(3)));
    CHECK(bench.on_disk() == 2);
  }
  bench.disk.repair();
  REQUIRE(bench.store.commit(0, state(4)));
  CHECK(bench.on_disk() == 4);
}

TEST_CASE("commit: the taking back fails, too: old or new, never neither") {
  for (const Fault sync : {Fault::SyncLost, Fault::SyncHalf, Fault::SyncAll}) {
    for (const Fault withdrawal : {Fault::WriteError, Fault::HalfWritten, Fault::None}) {
      for (const Fault last : kSyncFaults) {
        Bench bench;
        bench.disk.plan({Fault::None, sync, withdrawal, last});
        CHECK_FALSE(bench.store.commit(0, state(3)));
        CHECK((bench.on_disk() == 2 || bench.on_disk() == 3));
        CHECK((bench.in_cache() == 2 || bench.in_cache() == 3));
        bench.disk.repair();
        REQUIRE(bench.store.commit(0, state(4)));
        CHECK(bench.on_disk() == 4);
      }
    }
  }
}

TEST_CASE("commit: the power is cut at any moment: old or new") {
  std::mt19937 random(3);  // the same cuts each time
  int old_states = 0;
  int new_states = 0;
  for (int cut = 0; cut < 2000; ++cut) {
    Bench bench;
    // Before the sync all of the new state is in the cache, or a half of it.
    bench.disk.plan({cut % 2 == 0 ? Fault::HalfWritten : Fault::None, Fault::SyncLost, Fault::WriteError});
    CHECK_FALSE(bench.store.commit(0, state(3)));
    const int state_found =
        found(bench.disk.after_power_cut(0, random), bench.disk.after_power_cut(1, random), 2);
    REQUIRE((state_found == 2 || state_found == 3));
    ++(state_found == 2 ? old_states : new_states);
  }
  CHECK(old_states > 0);
  CHECK(new_states > 0);
}

TEST_CASE("commit: the first one fails: nothing that another start would take for a TPM") {
  FaultyDisk disk;
  auto store = SlotStore::open(test_owner(), 0, disk.open(0), disk.open(1)).value();
  disk.plan({Fault::None, Fault::SyncAll});
  CHECK_FALSE(store.commit(0, state(1)));
  CHECK(store.sequence() == 0);
  CHECK(found(disk.stored(0), disk.stored(1)) == 0);
  REQUIRE(store.commit(0, state(2)));
  CHECK(found(disk.stored(0), disk.stored(1), 1) == 2);
}

TEST_CASE("commit: later ones need no new blocks") {
  Bench bench;
  const auto size = bench.disk.stored(0).size();
  CHECK(size == kSlotReserve);
  for (std::uint8_t number = 3; number < 60; ++number)
    REQUIRE(bench.store.commit(0, state(number)));
  CHECK(bench.disk.stored(0).size() == size);
  CHECK(bench.disk.stored(1).size() == size);
}
