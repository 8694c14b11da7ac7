// SPDX-License-Identifier: Apache-2.0
// A durable instance does not start from a state that is older than vtpmd knows of.
#include "tests/integration/supervisor/durable_tenant.h"
#include "tests/support/skip.h"

#include <sys/file.h>

using namespace vtpm;
using namespace vtpm::test;

namespace {

// After the files were put back: it does not start, says why and where, and the files are kept.
void check_refused(const Place& place, const std::string& id) {
  const auto before = contents(slots_of(place, id));
  const auto daemon = Daemon::start(place);
  INFO(place.log());
  REQUIRE(daemon->ready());
  REQUIRE(becomes(*daemon, id, "failed"));
  const std::string reason = show(*daemon, id)["reason"];
  INFO(reason);
  CHECK(has(reason, "rolled back"));
  for (const auto& slot : slots_of(place, id))
    CHECK(has(reason, slot));
  CHECK(contents(slots_of(place, id)) == before);
}

void put_back(const Place& place, const std::string& id, const std::vector<Bytes>& old) {
  // An engine that ends in order commits once more, and has the lock until then.
  const UniqueFd slot(::open(slots_of(place, id)[0].c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(eventually([&] { return ::flock(slot.get(), LOCK_EX | LOCK_NB) == 0; }));
  for (std::size_t i = 0; i < old.size(); ++i)
    overwrite(slots_of(place, id)[i], old[i]);
}

}  // namespace

TEST_CASE("durable: state that was put back to an older one is refused by name") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id;
  std::vector<Bytes> old;
  for (int run = 0; run < 2; ++run) {
    const auto daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
    if (run == 0) id = create(*daemon, kKeep);
    REQUIRE(becomes(*daemon, id, "running"));
    {
      Tenant tenant(place, id);
      if (run == 0) tenant.define();
      tenant.store(static_cast<u8>(run));
    }
    CHECK(daemon->stop(SIGTERM) == 0);
    if (run == 0) old = contents(slots_of(place, id));
  }
  const bool newest_alone = GENERATE(true, false);  // one slot torn, the other older than was anchored
  if (newest_alone) {
    const auto sequence = [](const Bytes& slot) { return get_be<std::uint64_t>(slot, 16); };
    const auto now = contents(slots_of(place, id));
    const std::size_t newest = sequence(now[0]) > sequence(now[1]) ? 0 : 1;
    overwrite(slots_of(place, id)[newest], Bytes(100, 0));
  } else {
    put_back(place, id, old);
  }
  check_refused(place, id);
}

TEST_CASE(
    "durable: no orderly stop is needed: a reset and a start, too, leave nothing older to be put back") {
  if (!is_root_with_fuse()) VTPM_SKIP("needs root and /dev/fuse");
  const Place place;
  std::string id;
  std::vector<Bytes> old;
  const bool by_reset = GENERATE(true, false);
  auto daemon = Daemon::start(place);
  REQUIRE(daemon->ready());
  id = create(*daemon, kKeep);
  {
    Tenant tenant(place, id);
    tenant.define();
    tenant.store(1);
    old = contents(slots_of(place, id));
    tenant.store(2);
  }
  if (by_reset) {
    const pid_t engine = show(*daemon, id)["pid"];
    REQUIRE(::kill(engine, SIGKILL) == 0);
    REQUIRE(eventually([&] { return !entries_of<log::InstanceReset>(*daemon, id).empty(); }));
  } else {
    daemon->stop(SIGKILL);
    place.end_keeper();
    daemon = Daemon::start(place);
    REQUIRE(daemon->ready());
  }
  REQUIRE(becomes(*daemon, id, "running"));
  CHECK(entries_of<log::InstanceState>(*daemon, id).empty());
  daemon->stop(SIGKILL);
  place.end_keeper();
  put_back(place, id, old);
  check_refused(place, id);
}
