// SPDX-License-Identifier: Apache-2.0
// Engines that are waited for by no thread: they are asked, their sockets are watched, and what has come is
// taken.
#include "daemon/supervisor/supervision.h"

namespace vtpm::supervisor {
namespace {

using Clock = std::chrono::steady_clock;

// Until the engine has said something, perhaps; at most until then.
Task<> word_from(const Engine& engine, Clock::time_point until) {
  const auto executor = co_await asio::this_coro::executor;
  VTPM_CO_TRY(UniqueFd copy, engine.link->duplicate());
  Descriptor socket(executor);
  boost::system::error_code error;
  socket.assign(copy.get(), error);
  if (error) co_return errno_error("an engine cannot be waited for", error.value());
  (void)copy.release();  // the descriptor's now
  asio::steady_timer limit(executor, until);
  // It is told of its cancellation, or has expired, only when this coroutine has ended: it owns nothing of
  // it.
  const auto stop = std::make_shared<Descriptor*>(&socket);
  limit.async_wait([stop](const boost::system::error_code& cancelled) {
    boost::system::error_code ignored;
    if (!cancelled && *stop != nullptr) (*stop)->cancel(ignored);
  });
  co_await socket.async_wait(Descriptor::wait_read, kResume);
  *stop = nullptr;
  co_return Result<>();
}

// What `look` says, who does not wait, as soon as that is not Timeout.
template <class Look>
Task<> answer_of(const Engine& engine, std::chrono::seconds limit, Look look) {
  const auto until = Clock::now() + limit;
  Result<> answer = look();
  while (!answer && answer.error().kind() == ErrorCode::Timeout && Clock::now() < until) {
    VTPM_CO_TRY_VOID(co_await word_from(engine, until));
    answer = look();
  }
  co_return answer;
}

Error busy() {
  return {ErrorCode::Busy,
          "the TPM does not answer: it makes a key, or its container is paused, or the host is overloaded; "
          "try again"};
}

}  // namespace

Task<> wait_until_free(std::shared_ptr<Engine> engine) {
  if (!engine->link) co_return Error(ErrorCode::Unreachable, "the engine has ended");
  const auto now = [] { return after(std::chrono::milliseconds(0)); };
  const auto status = engine->link->status_if_free(now());
  Result<> answer = status ? Result<>() : Result<>(status.error());
  const auto look = [&engine, now] {
    engine->link->set_deadline(now());
    return engine->link->take_over();
  };
  if (!answer && answer.error().kind() == ErrorCode::Timeout)
    answer = co_await answer_of(*engine, kConversation, look);
  if (answer) co_return answer;
  const ErrorCode kind = answer.error().kind();
  if (kind == ErrorCode::Timeout || kind == ErrorCode::Busy) co_return busy();
  if (is_fatal_to_engine(kind)) engine->kill();
  co_return answer;
}

Task<> have_served(std::shared_ptr<Engine> engine, ipc::EngineLink::Served node) {
  VTPM_CO_TRY_VOID(co_await wait_until_free(engine));
  Result<> served = engine->link->ask_to_serve(node);
  const auto look = [&engine] { return engine->link->served(); };
  if (served) served = co_await answer_of(*engine, kFreeConversation, look);
  if (!served && is_fatal_to_engine(served.error().kind())) engine->kill();
  co_return served;
}

}  // namespace vtpm::supervisor
