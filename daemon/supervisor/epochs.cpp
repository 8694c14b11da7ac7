// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/epochs.h"

#include "daemon/supervisor/clock.h"

namespace vtpm::supervisor {

Task<NextEpoch> Epochs::next(std::optional<Bytes> nonce) {
  if (hangs()) co_return no_answer();  // or its callers' nonces would pile up
  if (!collecting_) collecting_ = std::make_shared<Batch>();
  const auto batch = collecting_;
  const std::uint64_t index = batch->nonces.size();
  if (nonce) batch->nonces.push_back(std::move(*nonce));
  asio::steady_timer deadline(executor_, patience_);
  batch->waiting.push_back(&deadline);
  if (!running_) {
    running_ = true;
    began_ = std::chrono::steady_clock::now();
    spawn(executor_, "epochs", run());
  }
  if (!batch->outcome) co_await deadline.async_wait(kResume);
  if (!batch->outcome) {
    std::erase(batch->waiting, &deadline);
    co_return no_answer();
  }
  VTPM_CO_TRY(auto epoch, *batch->outcome);
  co_return NextEpoch{std::move(epoch), index};
}

asio::awaitable<void> Epochs::run() {
  while (collecting_) {
    const auto batch = std::exchange(collecting_, nullptr);
    began_ = std::chrono::steady_clock::now();
    finish(*batch, co_await sign(batch->nonces));
  }
  running_ = false;
}

void Epochs::finish(Batch& batch, Outcome outcome) {
  note(outcome);
  batch.outcome = std::move(outcome);
  for (asio::steady_timer* caller : std::exchange(batch.waiting, {}))
    caller->cancel();
}

bool Epochs::hangs() const {
  return running_ && std::chrono::steady_clock::now() - began_ > patience_;
}

Error Epochs::no_answer() {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience_).count();
  Error error(ErrorCode::Timeout, "the anchor has not answered for " + std::to_string(seconds) + " s");
  if (!health_.failure) {
    log_line(LogLevel::Warning, error.context);
    health_.failure = error;
  }
  return error;
}

asio::awaitable<Epochs::Outcome> Epochs::sign(std::vector<Bytes> nonces) {
  VTPM_CO_TRY(NonceTree tree, NonceTree::of(nonces));
  const auto read_head = [this] { return store_.log().head(store_.log().size()); };
  VTPM_CO_TRY(const LogHead head, co_await run_on(workers_.store, read_head));
  const evidence::Epoch epoch{head.size, head.root, tree.root(), now_ms()};

  const auto start = std::chrono::steady_clock::now();
  const auto sign = [this, data = evidence::qualifying_data(epoch)] { return anchor_.quote(data); };
  auto signed_by_anchor = co_await run_on(workers_.anchor, sign);
  // For who asks this API a busy TPM is a service that cannot serve now, not a conflict.
  if (!signed_by_anchor && signed_by_anchor.error().kind() == ErrorCode::Busy)
    co_return Error(ErrorCode::Unavailable, signed_by_anchor.error().context);
  VTPM_CO_TRY(anchor::AnchorQuote quote, std::move(signed_by_anchor));
  const auto duration =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
  SignedEpoch made{epoch, std::move(quote), std::move(tree), duration};
  co_return std::make_shared<const SignedEpoch>(std::move(made));
}

void Epochs::note(const Outcome& outcome) {
  if (outcome) {
    if (health_.failure) log_line(LogLevel::Info, "the anchor answers again");
    health_.failure.reset();
    ++health_.quotes;
    latest_ = *outcome;
    return;
  }
  ++health_.failures;
  log_line(LogLevel::Warning, "an epoch could not be signed: " + outcome.error().context);
  health_.failure = outcome.error();
}

}  // namespace vtpm::supervisor
