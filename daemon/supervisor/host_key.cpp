// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/host_key.h"

#include "daemon/anchor/state_key.h"

namespace vtpm::supervisor {
namespace {

Result<Secret> read_key(anchor::Anchor& anchor, const std::string& state_dir, bool in_use) {
  if (!in_use) return anchor.state_key();
  VTPM_TRY(std::optional<Secret> key, anchor.existing_state_key());
  if (key) return std::move(*key);
  const bool embedded = anchor.identity().kind == log::AnchorKind::Embedded;
  return Error(ErrorCode::Corrupt,
               state_dir + (embedded ? "/state.key" : "/state-key.json") +
                   " is missing, although durable instances need it; nothing was changed. "
                   "Restore it from a backup, or destroy the instances");
}

}  // namespace

Task<HostKey::Shared> HostKey::get(bool in_use) {
  if (key_) co_return key_;
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer deadline(executor, patience_);
  const auto question = std::make_shared<Question>();
  question->waiting = &deadline;
  if (!given_up_) {
    waiting_.insert(&deadline);
    spawn(executor, "host state key", ask(in_use, question));
    co_await deadline.async_wait(kResume);
    waiting_.erase(&deadline);
    question->waiting = nullptr;
  }
  if (question->answer) co_return *question->answer;
  if (given_up_) co_return Error(ErrorCode::Unavailable, "vtpmd is stopping");
  co_return Error(ErrorCode::Timeout,
                  "the anchor has not answered for " +
                      std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience_).count()) +
                      " s: without the host state key no durable instance can be opened");
}

asio::awaitable<void> HostKey::ask(bool in_use, std::shared_ptr<Question> question) {
  const auto read = [this, in_use] { return read_key(anchor_, state_dir_, in_use); };
  auto key = co_await run_on(workers_.anchor, read);
  if (key && !key_) key_ = std::make_shared<const Secret>(std::move(*key));
  question->answer = key ? Result<Shared>(key_) : Result<Shared>(key.error());
  if (question->waiting != nullptr) question->waiting->cancel();
}

void HostKey::give_up() {
  given_up_ = true;
  for (asio::steady_timer* caller : waiting_)
    caller->cancel();
}

}  // namespace vtpm::supervisor
