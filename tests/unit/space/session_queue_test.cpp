// SPDX-License-Identifier: Apache-2.0
// Who gets the next session: the rules alone, on a clock of the test's.
#include "space/session_queue.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::space;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kActive = 8;
const Clock::time_point kStart{1h};

struct Tables {
  SessionTable sessions;
  SessionQueue queue;
  Space a{Kind::Managed, {}}, b{Kind::Managed, {}}, c{Kind::Managed, {}};

  // Sessions of `owner`, each a millisecond younger than the one before.
  void give(Space* owner, std::size_t count) {
    for (; count > 0; --count) {
      const auto index = static_cast<std::uint32_t>(sessions.size());
      sessions.put({kHmacSessionFirst + index, owner, kStart + index * 1ms, 0, Session::Loaded{}});
    }
  }
  Admission ask(const Space& space, Clock::time_point now) {
    return admit(sessions, queue, space, kActive, 1, now);
  }
  std::uint32_t victim(const Space& space, Clock::time_point now) {
    const Admission admission = ask(space, now);
    REQUIRE(std::holds_alternative<Evict>(admission));
    return std::get<Evict>(admission).session;
  }
};

}  // namespace

TEST_CASE("session queue: while there is room nobody waits") {
  Tables t;
  t.give(&t.a, kActive - 1);
  CHECK(std::holds_alternative<Admitted>(t.ask(t.b, kStart)));
}

TEST_CASE("session queue: a free session is the first waiter's") {
  Tables t;
  t.give(&t.a, kActive - 1);
  t.queue.join(t.b);
  CHECK(std::holds_alternative<SessionWait>(t.ask(t.c, kStart)));
  CHECK(std::holds_alternative<Admitted>(t.ask(t.b, kStart)));
  t.queue.leave(t.b);
  CHECK(std::holds_alternative<Admitted>(t.ask(t.c, kStart)));
}

TEST_CASE("session queue: nothing younger than two seconds is taken, and the wait says when it is due") {
  Tables t;
  t.give(&t.a, kActive);
  const Admission early = t.ask(t.b, kStart + 1s);
  REQUIRE(std::holds_alternative<SessionWait>(early));
  CHECK(std::get<SessionWait>(early).until == kStart + 2s);
  CHECK(t.victim(t.b, kStart + 2s) == kHmacSessionFirst);
}

TEST_CASE("session queue: who is over the fair share loses first, though others are older") {
  Tables t;
  t.give(&t.c, 1);
  t.give(&t.a, kActive - 1);
  CHECK(t.victim(t.b, kStart + 3s) == kHmacSessionFirst + 1);
}

TEST_CASE("session queue: a hoarder's next session costs one of its own") {
  Tables t;
  t.give(&t.c, 1);
  t.give(&t.a, kActive - 1);
  CHECK(t.victim(t.a, kStart + 3s) == kHmacSessionFirst + 1);
}

TEST_CASE("session queue: where each has its share, who wants more pays himself") {
  Tables t;
  t.give(&t.c, 4);
  t.give(&t.a, 4);
  CHECK(t.victim(t.a, kStart + 3s) == kHmacSessionFirst + 4);
}

TEST_CASE("session queue: who waits counts for the share, though it holds none") {
  Tables t;
  t.give(&t.c, 4);
  t.give(&t.a, 4);
  t.queue.join(t.b);
  CHECK(t.victim(t.a, kStart + 3s) == kHmacSessionFirst);  // a and c both have more than a third
}

TEST_CASE("session queue: orphans count as one more space") {
  Tables t;
  t.give(&t.a, 1);
  t.give(nullptr, kActive - 1);
  CHECK(t.victim(t.b, kStart + 3s) == kHmacSessionFirst + 1);
}

TEST_CASE("session queue: more spaces than sessions, and the oldest session goes") {
  Tables t;
  std::vector<Space> many(kActive, Space{Kind::Managed, {}});
  for (Space& space : many)
    t.give(&space, 1);
  CHECK(t.victim(t.b, kStart + 3s) == kHmacSessionFirst);
}

TEST_CASE("session queue: sessions that the command itself uses are no victims") {
  Tables t;
  t.give(&t.a, kActive);
  t.sessions.find(kHmacSessionFirst)->used = 1;
  CHECK(t.victim(t.b, kStart + 3s) == kHmacSessionFirst + 1);
}
