// SPDX-License-Identifier: Apache-2.0
// Epochs: one quote of the anchor for the log's head and all nonces that arrived while the last one ran.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/supervisor/async.h"
#include "daemon/supervisor/nonce_tree.h"
#include "daemon/supervisor/store.h"
#include "daemon/supervisor/workers.h"

#include <chrono>
#include <vector>

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
  std::optional<Error> failure;  // of the last epoch, or of the one that takes too long
  std::uint64_t quotes = 0;
  std::uint64_t failures = 0;
};

// How long a caller waits for its epoch: far longer than any TPM that works needs.
inline constexpr std::chrono::milliseconds kAnchorPatience = std::chrono::seconds(30);

class Epochs {
 public:
  Epochs(asio::any_io_executor executor, Workers& workers, anchor::Anchor& anchor, Store& store,
         std::chrono::milliseconds patience = kAnchorPatience)
      : executor_(std::move(executor)),
        workers_(workers),
        anchor_(anchor),
        store_(store),
        patience_(patience) {}

  // Waits for an epoch that begins after this call; it covers all entries committed before. A failing anchor
  // fails this call (a busy one: Unavailable), and the next call tries again. One that does not answer:
  // Timeout after the patience, and at once for who asks while it hangs; the epoch itself may still be
  // finished.
  Task<NextEpoch> next(std::optional<Bytes> nonce);
  // nullptr: none yet.
  std::shared_ptr<const SignedEpoch> latest() const noexcept { return latest_; }
  const AnchorHealth& health() const noexcept { return health_; }

 private:
  using Outcome = Result<std::shared_ptr<const SignedEpoch>>;
  struct Batch {
    std::vector<Bytes> nonces;
    std::vector<asio::steady_timer*> waiting;  // each its caller's
    std::optional<Outcome> outcome;
  };

  asio::awaitable<void> run();
  asio::awaitable<Outcome> sign(std::vector<Bytes> nonces);
  void note(const Outcome& outcome);
  void finish(Batch& batch, Outcome outcome);
  bool hangs() const;
  Error no_answer();

  asio::any_io_executor executor_;
  Workers& workers_;
  anchor::Anchor& anchor_;
  Store& store_;
  std::chrono::milliseconds patience_;
  std::shared_ptr<Batch> collecting_;
  bool running_ = false;
  std::chrono::steady_clock::time_point began_;  // the epoch that runs
  std::shared_ptr<const SignedEpoch> latest_;
  AnchorHealth health_;
};

}  // namespace vtpm::supervisor
