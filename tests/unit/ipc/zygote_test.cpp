// SPDX-License-Identifier: Apache-2.0
// A hostile zygote: who waits for it waits until his time, whatever it sends or does not send.
#include "daemon/ipc/engine_link.h"
#include "tests/support/catch_result.h"
#include "tests/support/temporary_directory.h"

#include <vtpm/os/process.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

using namespace vtpm;
using namespace vtpm::ipc;
using namespace std::chrono_literals;

namespace {

constexpr auto kLong = 30s;  // never waited for where the code is right

class Hostile {
 public:
  explicit Hostile(const std::string& mode, std::chrono::milliseconds patience = kLong) {
    const std::string program = directory_.path("zygote-" + mode);
    std::filesystem::create_symlink(std::string(VTPM_BIN_DIR) + "/hostile_zygote", program);
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    said_.reset(ends[0]);
    const UniqueFd log(ends[1]);
    started_ = Zygote::start(program, log.get(), patience);
  }
  const Result<std::unique_ptr<Zygote>>& started() const { return started_; }
  Zygote* operator->() {
    REQUIRE(started_);
    return started_->get();
  }
  // Waits until it has said that there is something to see.
  void saw() const {
    char said = 0;
    REQUIRE(::read(said_.get(), &said, 1) == 1);
  }
  void end() { started_->reset(); }
  bool has_ended() {
    pollfd ended{started_->get()->pidfd(), POLLIN, 0};
    return ::poll(&ended, 1, 30000) == 1;
  }

 private:
  test::TemporaryDirectory directory_;
  UniqueFd said_;
  Result<std::unique_ptr<Zygote>> started_ = Error();
};

}  // namespace

TEST_CASE("zygote: one that says much is not listened to beyond the time for an exit") {
  Hostile zygote("talkative");
  REQUIRE(zygote.has_ended());  // it has said all
  CHECK_FALSE(zygote->exit_of(77, 0ms));
  CHECK(zygote->exit_of(77, kLong));
}

TEST_CASE("zygote: one that never gets ready is given up, and ended") {
  const Hostile zygote("mute", 100ms);
  REQUIRE_FALSE(zygote.started());
  CHECK(zygote.started().error().kind() == ErrorCode::Configuration);
}

TEST_CASE("zygote: one that does not end by itself is killed") {
  Hostile zygote("deaf");
  const UniqueFd pidfd(::fcntl(zygote->pidfd(), F_DUPFD_CLOEXEC, 3));
  zygote.end();
  pollfd ended{pidfd.get(), POLLIN, 0};
  CHECK(::poll(&ended, 1, 0) == 1);
}

TEST_CASE("zygote: who wants an engine of a silent one waits until his time") {
  Hostile zygote("silent");
  CHECK(zygote->spawn(50ms).error().kind() == ErrorCode::Timeout);
}

TEST_CASE("zygote: who wants an engine does not listen beyond his time to one that says something else") {
  Hostile zygote("evasive");
  zygote.saw();
  CHECK(zygote->spawn(-1ms).error().kind() == ErrorCode::Timeout);
  // One of its hundred events was heard.
  CHECK_FALSE(zygote->exit_of(77, 0ms));
  CHECK(zygote->exit_of(77, kLong));
}

TEST_CASE("zygote: a late answer is not taken for that to the next request") {
  Hostile zygote("late");
  CHECK(zygote->spawn(50ms).error().kind() == ErrorCode::Timeout);
  CHECK(zygote->spawn(kLong).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("zygote: an answer that is none is malformed") {
  const std::string mode = GENERATE("other-verb", "other-event", "no-descriptor", "garbage");
  INFO(mode);
  Hostile zygote(mode);
  CHECK(zygote->spawn(kLong).error().kind() == ErrorCode::Malformed);
}

TEST_CASE("zygote: whether one has engines is seen without waiting for it, or for who does") {
  Hostile zygote("mother");
  CHECK(zygote->childless());
  REQUIRE(zygote->spawn());
  CHECK_FALSE(zygote->childless());  // it keeps silent
  std::optional<ErrorCode> outcome;
  std::thread waiting([&] { outcome = zygote->spawn(kLong).error().kind(); });
  zygote.saw();
  CHECK_FALSE(zygote->childless());
  CHECK(signal_process(zygote->pidfd(), SIGKILL));
  waiting.join();
  CHECK(outcome == ErrorCode::Unreachable);
  CHECK(zygote->childless());  // who is gone has none to tell of
}

TEST_CASE("zygote: one that tells of ended engines for ever keeps nobody") {
  Hostile zygote("endless");
  zygote.saw();
  for (int i = 0; i < 20; ++i)
    if (const auto exits = zygote->childless()) CHECK(exits->size() <= 4096);
  CHECK_FALSE(zygote->exit_of(1, 50ms));
  CHECK(zygote->spawn(50ms).error().kind() == ErrorCode::Timeout);
}
