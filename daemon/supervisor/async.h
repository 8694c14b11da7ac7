// SPDX-License-Identifier: Apache-2.0
// Coroutines that yield Result. One thread runs them all and owns the daemon's state; blocking work goes to a
// pool through run_on() and comes back as a completion.
#pragma once

#include "daemon/supervisor/disposal.h"
#include "daemon/supervisor/logging.h"

#include <vtpm/os/result.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace vtpm::supervisor {

namespace asio = boost::asio;

template <class T = void>
using Task = asio::awaitable<Result<T>>;

// The completion token of every Asio operation: its error code comes back as a value.
inline constexpr auto kResume = asio::as_tuple(asio::use_awaitable);

// Runs `work` on a thread of `pool` and resumes the caller on its own executor with what it returned.
// `work` owns what it uses, or the caller's frame outlives it (a frame is never destroyed while it waits).
template <class Work>
asio::awaitable<std::invoke_result_t<Work&>> run_on(asio::thread_pool& pool, Work work) {
  using Value = std::invoke_result_t<Work&>;
  const auto executor = co_await asio::this_coro::executor;
  auto start = [&pool, executor](auto handler, Work job) {
    auto run = [executor, guard = asio::make_work_guard(executor), handler = std::move(handler),
                job = std::move(job)]() mutable {
      auto resume = [handler = std::move(handler), value = job()]() mutable {
        std::move(handler)(std::move(value));
      };
      asio::post(executor, std::move(resume));
    };
    asio::post(pool, std::move(run));
  };
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>&, void(Value)>(
      std::move(start), asio::use_awaitable, std::move(work));
}

// Has descriptors of a peer closed, and resumes the caller when they are, which may be never.
inline asio::awaitable<void> dispose(Disposal& disposal, uid_t user, Disposal::Kind kind,
                                     std::vector<UniqueFd> fds) {
  const auto executor = co_await asio::this_coro::executor;
  auto start = [&disposal, executor, user, kind](auto handler, std::vector<UniqueFd> all) {
    const auto resume = std::make_shared<decltype(handler)>(std::move(handler));
    disposal.drop(user, kind, std::move(all), [executor, guard = asio::make_work_guard(executor), resume] {
      asio::post(executor, [resume] { std::move (*resume)(); });
    });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>&, void()>(std::move(start), asio::use_awaitable,
                                                                        std::move(fds));
}

// Cancels what is pending on something when the time is over, unless it is destroyed first.
template <class Cancellable>
class Expiry {
 public:
  Expiry(Cancellable& pending, std::chrono::milliseconds limit)
      : timer_(pending.get_executor(), limit), armed_(std::make_shared<bool>(true)) {
    timer_.async_wait([armed = armed_, &pending](boost::system::error_code error) {
      boost::system::error_code ignored;
      if (!error && *armed) pending.cancel(ignored);
    });
  }
  Expiry(const Expiry&) = delete;
  Expiry& operator=(const Expiry&) = delete;
  ~Expiry() { *armed_ = false; }

 private:
  asio::steady_timer timer_;
  std::shared_ptr<bool> armed_;
};

// Starts a coroutine that nobody waits for. One that ends by an exception is a bug that is logged, not the
// daemon's end.
inline void spawn(const asio::any_io_executor& executor, std::string name, asio::awaitable<void> task) {
  asio::co_spawn(executor, std::move(task), [name = std::move(name)](std::exception_ptr error) {
    if (error) log_line(LogLevel::Error, name + ": ended by an exception");
  });
}

// A lock for coroutines of one thread, first come first served.
class AsyncLock {
 public:
  explicit AsyncLock(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  class Guard {
   public:
    explicit Guard(AsyncLock& lock) noexcept : lock_(&lock) {}
    Guard(Guard&& other) noexcept : lock_(std::exchange(other.lock_, nullptr)) {}
    Guard& operator=(Guard&&) = delete;
    ~Guard() {
      if (lock_ != nullptr) lock_->release();
    }

   private:
    AsyncLock* lock_;
  };

  // The lock must outlive the guard and every waiter.
  asio::awaitable<Guard> acquire() {
    if (held_) {
      asio::steady_timer turn(executor_, asio::steady_timer::time_point::max());
      waiting_.push_back(&turn);
      co_await turn.async_wait(kResume);
    }
    held_ = true;
    co_return Guard(*this);
  }

 private:
  // Hands the lock to the first waiter without letting go of it, so that nobody overtakes.
  void release() noexcept {
    held_ = !waiting_.empty();
    if (!held_) return;
    waiting_.front()->cancel();
    waiting_.pop_front();
  }

  asio::any_io_executor executor_;
  std::deque<asio::steady_timer*> waiting_;
  bool held_ = false;
};

// Something that coroutines wait for until it has happened.
class Signal {
 public:
  explicit Signal(const asio::any_io_executor& executor)
      : timer_(executor, asio::steady_timer::time_point::max()) {}
  void set() {
    set_ = true;
    timer_.cancel();
  }
  asio::awaitable<void> wait() {
    while (!set_)
      co_await timer_.async_wait(kResume);
  }

 private:
  asio::steady_timer timer_;
  bool set_ = false;
};

}  // namespace vtpm::supervisor
