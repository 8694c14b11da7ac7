// SPDX-License-Identifier: Apache-2.0
// Epochs: one quote of the anchor for the log's head and all nonces that arrived while the last one ran.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/supervisor/async.h"
#include "daemon/supervisor/nonce_tree.h"
#include "daemon/supervisor/store.h"
#include "daemon/supervisor/workers.h"

#include <chrono>

namespace vtpm::supervisor {

struct SignedEpoch {
  evidence::Epoch epoch;
  anchor::AnchorQuote quote;
  NonceTree nonces;
  std::chrono::milliseconds duration;  // of the quote
};

// An epoch that began after it was asked for.
struct NextEpoch {
  std::shared_ptr<const SignedEpoch> epoch;
  std::uint64_t nonce_index;  // of the caller's nonce, when one was given
};

// How the anchor did last.
struct AnchorHealth {
  std::optional<Error> failure;  // of the last epoch
  std::uint64_t quotes = 0;
  std::uint64_t failures = 0;
};

class Epochs {
 public:
  Epochs(asio::any_io_executor executor, Workers& workers, anchor::Anchor& anchor, Store& store)
      : executor_(std::move(executor)), workers_(workers), anchor_(anchor), store_(store) {}

  // Waits for an epoch that begins after this call; it covers all entries committed before. A failing anchor
  // fails this call (a busy one: Unavailable), and the next call tries again.
  Task<NextEpoch> next(std::optional<Bytes> nonce);
  // nullptr: none yet.
  std::shared_ptr<const SignedEpoch> latest() const noexcept { return latest_; }
  const AnchorHealth& health() const noexcept { return health_; }

 private:
  using Outcome = Result<std::shared_ptr<const SignedEpoch>>;
  struct Batch {
    explicit Batch(const asio::any_io_executor& executor) : done(executor) {}
    std::vector<Bytes> nonces;
    Signal done;
    Outcome outcome = Error(ErrorCode::Internal, "the epoch has not been signed");
  };

  asio::awaitable<void> run();
  asio::awaitable<Outcome> sign(std::vector<Bytes> nonces);
  void note(const Outcome& outcome);

  asio::any_io_executor executor_;
  Workers& workers_;
  anchor::Anchor& anchor_;
  Store& store_;
  std::shared_ptr<Batch> collecting_;
  bool running_ = false;
  std::shared_ptr<const SignedEpoch> latest_;
  AnchorHealth health_;
};

}  // namespace vtpm::supervisor
