// SPDX-License-Identifier: Apache-2.0
// Address-space randomisation is not shared for ever: zygotes follow one another, and nothing is lost.
#include "daemon/ipc/zygotes.h"

#include "tests/support/catch_result.h"
#include "tests/support/engine.h"

#include <vtpm/os/file.h>
#include <vtpm/os/process.h>

#include <signal.h>
#include <sys/wait.h>

#include <set>
#include <thread>

using namespace vtpm;
using namespace vtpm::test;

namespace {

constexpr std::size_t kForksEach = 3;
constexpr std::chrono::seconds kLong{10};

std::unique_ptr<ipc::Zygotes> start_zygotes() {
  auto zygotes = ipc::Zygotes::start(
      std::string(VTPM_BIN_DIR) + "/vtpm-engine", STDERR_FILENO,
      [](std::string_view text) { std::fprintf(stderr, "%.*s\n", int(text.size()), text.data()); },
      kForksEach);
  REQUIRE(zygotes);
  return std::move(*zygotes);
}

bool eventually(const std::function<bool()>& done) {
  for (const Deadline end = after(kLong); std::chrono::steady_clock::now() < *end;) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// Engines, made until `generations` zygotes have been started.
std::vector<ipc::SpawnedEngine> spawn_over(ipc::Zygotes& zygotes, std::size_t generations) {
  std::vector<ipc::SpawnedEngine> engines;
  REQUIRE(eventually([&] {
    auto engine = zygotes.spawn();
    REQUIRE(engine);
    engines.push_back(std::move(*engine));
    return zygotes.started() >= generations;
  }));
  auto last = zygotes.spawn();
  REQUIRE(last);
  engines.push_back(std::move(*last));
  return engines;
}

// Where the program and its libraries are: the first mapping of each file.
std::string layout(pid_t pid) {
  const auto maps = read_file("/proc/" + std::to_string(pid) + "/maps", 1 << 20);
  REQUIRE(maps);
  const std::string text(as_text(*maps));
  const auto at = text.find("libtpms");
  REQUIRE(at != std::string::npos);
  const auto line = text.rfind('\n', at) + 1;
  return text.substr(line, text.find('-', line) - line);
}

}  // namespace

TEST_CASE("zygotes: engines of different zygotes have different layouts") {
  if (::getuid() != 0) return;  // an engine's mappings are root's to read
  const auto zygotes = start_zygotes();
  const auto engines = spawn_over(*zygotes, 4);
  std::set<std::string> layouts;
  for (const auto& engine : engines)
    layouts.insert(layout(engine.pid));
  CHECK(layouts.size() >= 3);
  CHECK(layouts.size() <= 4);
}

TEST_CASE("zygotes: TPMs of all generations answer, and no two are alike") {
  const auto zygotes = start_zygotes();
  const auto engines = spawn_over(*zygotes, 3);
  std::set<Bytes> keys, randoms;
  for (const auto& engine : engines) {
    REQUIRE(engine.link->power_on());
    REQUIRE(code_of(run(*engine.link, startup_clear())) == 0);
    randoms.insert(run(*engine.link, get_random(32)));
    keys.insert(public_in(run(*engine.link, create_primary(kEndorsement))));
  }
  CHECK(keys.size() == engines.size());
  CHECK(randoms.size() == engines.size());
}

TEST_CASE("zygotes: the exit status of an engine is found whatever its generation") {
  const auto zygotes = start_zygotes();
  auto engines = spawn_over(*zygotes, 4);
  // The newest first, so that the old zygotes are still needed.
  for (std::size_t i = engines.size(); i-- > 0;) {
    REQUIRE(signal_process(engines[i].pidfd.get(), SIGKILL));
    const auto exit = zygotes->exit_of(engines[i].pid, kLong);
    REQUIRE(exit);
    CHECK(WIFSIGNALED(exit->status));
    CHECK(WTERMSIG(exit->status) == SIGKILL);
  }
}

TEST_CASE("zygotes: an old zygote ends with its last engine, and what nobody asked for is kept") {
  const auto zygotes = start_zygotes();
  auto engines = spawn_over(*zygotes, 4);
  CHECK(zygotes->alive() >= 3);
  for (auto& engine : engines)
    engine.link.reset();
  for (auto& engine : engines)
    REQUIRE(eventually([&] { return has_ended(engine.pidfd.get()); }));
  // Each question lets go of zygotes; the answers of others must not go with them.
  for (const auto& engine : engines) {
    const auto exit = zygotes->exit_of(engine.pid, kLong);
    REQUIRE(exit);
    CHECK(exit->status == 0);
  }
  CHECK(eventually([&] {
    (void)zygotes->exit_of(1, std::chrono::milliseconds(0));
    return zygotes->alive() == 1;  // the one in use
  }));
}

TEST_CASE("zygotes: one that was killed is replaced, and its engines go on") {
  const auto zygotes = start_zygotes();
  const auto before = zygotes->spawn();
  REQUIRE(before);
  REQUIRE(before->link->power_on());
  REQUIRE(signal_process(zygotes->newest()->pidfd(), SIGKILL));
  REQUIRE(eventually([&] { return has_ended(zygotes->newest()->pidfd()); }));
  const auto after_it = zygotes->spawn();
  REQUIRE(after_it);
  CHECK(after_it->link->power_on());
  CHECK(code_of(run(*before->link, startup_clear())) == 0);
}
