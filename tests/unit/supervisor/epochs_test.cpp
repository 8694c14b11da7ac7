// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/epochs.h"

#include "tests/support/catch_result.h"
#include "tests/support/temporary_directory.h"

#include <boost/asio/io_context.hpp>

#include <functional>
#include <future>
#include <set>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

constexpr std::size_t kLate = 24;

// Its first quote lasts until `during_first` returns, on the anchor's thread.
class SlowAnchor : public anchor::Anchor {
 public:
  const anchor::AnchorIdentity& identity() const noexcept override { return identity_; }
  Result<anchor::AnchorQuote> quote(const tpm::Sha256&) override {
    if (++quotes_ == 1) during_first();
    if (failure) return *failure;
    return anchor::AnchorQuote{};
  }
  Result<tpm::PcrValues> read_pcrs() override { return tpm::PcrValues(); }
  Result<Secret> state_key() override { return Error(ErrorCode::Unsupported, "no state key"); }
  Result<std::optional<Secret>> existing_state_key() override { return std::optional<Secret>(); }
  Result<anchor::Endorsement> endorsement() override { return Error(ErrorCode::NotFound, "no EK"); }
  Result<Secret> activate(const tpm::Credential&) override { return Error(ErrorCode::NotFound, "no EK"); }
  Result<> close() override { return {}; }
  int quotes() const { return quotes_; }  // read when the anchor's thread is idle

  std::function<void()> during_first = [] {};
  std::optional<Error> failure;

 private:
  anchor::AnchorIdentity identity_{log::AnchorKind::Embedded, {}, {}, {}, {}, 0};
  int quotes_ = 0;
};

// Epochs with that anchor, and what its callers got.
struct Bench {
  explicit Bench(std::chrono::milliseconds patience = kAnchorPatience) {
    auto opened = Store::open(directory.path());
    REQUIRE(opened);
    store = std::move(*opened);
    epochs.emplace(io.get_executor(), workers, anchor, *store, patience);
  }
  // Asks for an epoch; `all_wait` once that was the last of `kLate`.
  asio::awaitable<void> ask(std::optional<Bytes> nonce, std::promise<void>* all_wait = nullptr) {
    // The post runs when this coroutine waits.
    if (all_wait != nullptr && ++late == kLate) asio::post(io, [all_wait] { all_wait->set_value(); });
    answers.push_back(co_await epochs->next(std::move(nonce)));
  }
  void start(std::optional<Bytes> nonce, std::promise<void>* all_wait = nullptr) {
    spawn(io.get_executor(), "caller", ask(std::move(nonce), all_wait));
  }

  test::TemporaryDirectory directory;
  asio::io_context io{1};
  Disposal disposal;
  Workers workers{disposal};
  SlowAnchor anchor;
  std::unique_ptr<Store> store;
  std::optional<Epochs> epochs;
  std::size_t late = 0;
  std::vector<Result<NextEpoch>> answers;
};

}  // namespace

TEST_CASE("epochs: all nonces that arrive while one is signed share the next") {
  Bench bench;
  std::promise<void> all_wait;
  bench.anchor.during_first = [&] {
    asio::post(bench.io, [&] {
      for (std::size_t i = 0; i < kLate; ++i)
        bench.start(Bytes(16, static_cast<std::uint8_t>(i)), &all_wait);
    });
    all_wait.get_future().wait();
  };
  bench.start(Bytes(16, 0xff));
  bench.io.run();
  CHECK(bench.anchor.quotes() == 2);
  CHECK(bench.epochs->health().quotes == 2);
  REQUIRE(bench.answers.size() == 1 + kLate);
  REQUIRE(bench.answers.front());
  CHECK(bench.answers.front()->epoch->nonces.size() == 1);
  std::set<std::uint64_t> indices;
  for (std::size_t i = 1; i < bench.answers.size(); ++i) {
    REQUIRE(bench.answers[i]);
    CHECK(bench.answers[i]->epoch == bench.epochs->latest());
    indices.insert(bench.answers[i]->nonce_index);
  }
  CHECK(indices.size() == kLate);
  CHECK(bench.epochs->latest()->nonces.size() == kLate);
}

TEST_CASE("epochs: one that cannot be signed fails its callers, and the next call tries again") {
  Bench bench;
  bench.anchor.failure = Error(ErrorCode::Busy, "no room");
  bench.start({});
  bench.io.run();
  REQUIRE(bench.answers.size() == 1);
  CHECK(bench.answers[0].error().kind() == ErrorCode::Unavailable);
  CHECK(bench.epochs->health().failures == 1);
  CHECK(bench.epochs->latest() == nullptr);
  bench.anchor.failure.reset();
  bench.start({});
  bench.io.restart();
  bench.io.run();
  REQUIRE(bench.answers.size() == 2);
  CHECK(bench.answers[1]);
  CHECK_FALSE(bench.epochs->health().failure);
}

TEST_CASE("epochs: an anchor that hangs fails who waits and who asks, and its epoch may still be finished") {
  Bench bench(std::chrono::milliseconds(20));
  std::promise<void> both_failed;
  bench.anchor.during_first = [&] { both_failed.get_future().wait(); };
  const auto callers = [&]() -> asio::awaitable<void> {
    co_await bench.ask({});
    co_await bench.ask({});
    CHECK(bench.epochs->health().failure);
    both_failed.set_value();
  };
  spawn(bench.io.get_executor(), "callers", callers());
  bench.io.run();
  REQUIRE(bench.answers.size() == 2);
  for (const auto& answer : bench.answers) {
    REQUIRE_FALSE(answer);
    CHECK(answer.error().kind() == ErrorCode::Timeout);
  }
  CHECK(bench.anchor.quotes() == 1);
  CHECK(bench.epochs->latest() != nullptr);
  CHECK_FALSE(bench.epochs->health().failure);
}
