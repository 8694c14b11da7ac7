// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/disposal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

namespace vtpm::supervisor {
namespace {

using namespace std::chrono_literals;

constexpr auto kIdle = 10s;                        // until a thread without work ends
constexpr long kBetweenInterruptions = 1'000'000;  // ns
// Ignored by default, and nobody else's here.
constexpr int kInterruption = SIGURG;

void do_nothing(int) {}

// Without SA_RESTART. An ignored signal would interrupt nothing.
void handle_interruptions() {
  struct sigaction action {};
  action.sa_handler = do_nothing;
  ::sigaction(kInterruption, &action, nullptr);
}

// Interrupts the thread that made it, again and again from begin() to end(). Where there is no timer for it,
// a close takes as long as it takes.
class Interruptions {
 public:
  Interruptions() {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kInterruption;
    event._sigev_un._tid = ::gettid();  // what sigev_notify_thread_id stands for in newer C libraries
    made_ = ::timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0;
  }
  Interruptions(const Interruptions&) = delete;
  Interruptions& operator=(const Interruptions&) = delete;
  ~Interruptions() {
    if (made_) ::timer_delete(timer_);
  }

  void begin() { set(kBetweenInterruptions); }
  void end() { set(0); }

 private:
  void set(long interval) {
    const itimerspec times{{0, interval}, {0, interval}};
    if (made_) ::timer_settime(timer_, 0, &times, nullptr);
  }

  timer_t timer_{};
  bool made_ = false;
};

std::size_t quarter_of_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 1 << 18;
  return limit.rlim_cur / 4;
}

struct Work {
  std::vector<UniqueFd> fds;
  std::function<void()> done;
};

struct Queue {
  std::deque<Work> works;   // not begun
  std::size_t waiting = 0;  // descriptors, with those of the work that is being done
};

using Key = std::pair<uid_t, Disposal::Kind>;

}  // namespace

struct Disposal::State {
  explicit State(std::size_t max) : max_waiting(max) {}

  void add(const Key& key, Work work) {
    waiting += work.fds.size();
    const auto [queue, is_new] = queues.try_emplace(key);
    queue->second.waiting += work.fds.size();
    queue->second.works.push_back(std::move(work));
    if (is_new) ready.push_back(key);
  }

  Work begin(const Key& key) {
    auto& works = queues.at(key).works;
    Work work = std::move(works.front());
    works.pop_front();
    return work;
  }

  void finish(const Key& key, std::size_t closed) {
    waiting -= closed;
    const auto queue = queues.find(key);
    queue->second.waiting -= closed;
    if (queue->second.works.empty())
      queues.erase(queue);
    else
      ready.push_back(key);
  }

  const std::size_t max_waiting;
  mutable std::mutex mutex;  // guards all that follows
  std::condition_variable more;
  std::map<Key, Queue> queues;  // of users for whom there is, or is being done, something
  std::deque<Key> ready;        // those of them for whom no thread works
  std::size_t waiting = 0;      // descriptors in all
  std::size_t threads = 0;
  std::size_t idle = 0;  // threads that wait, or are about to take what is ready
};

Disposal::Disposal(std::size_t max_waiting) : state_(std::make_shared<State>(max_waiting)) {
  handle_interruptions();
}

Disposal::Disposal() : Disposal(quarter_of_descriptors()) {}

void Disposal::work(const std::shared_ptr<State>& state) {
  Interruptions interruptions;
  std::unique_lock lock(state->mutex);
  for (;;) {
    ++state->idle;
    const bool found = state->more.wait_for(lock, kIdle, [&] { return !state->ready.empty(); });
    --state->idle;
    if (!found) break;
    const Key key = state->ready.front();
    state->ready.pop_front();
    Work work = state->begin(key);
    const std::size_t count = work.fds.size();
    lock.unlock();
    interruptions.begin();
    work.fds.clear();
    interruptions.end();
    lock.lock();
    state->finish(key, count);
    lock.unlock();
    if (work.done) work.done();
    work.done = {};
    lock.lock();
  }
  --state->threads;
}

void Disposal::drop(uid_t user, Kind kind, std::vector<UniqueFd> fds, std::function<void()> done) {
  std::erase_if(fds, [](const UniqueFd& fd) { return !fd; });
  if (user == 0 || fds.empty()) {
    fds.clear();
    if (done) done();
    return;
  }
  const std::lock_guard lock(state_->mutex);
  state_->add({user, kind}, {std::move(fds), std::move(done)});
  state_->more.notify_one();
  if (state_->ready.size() <= state_->idle || state_->threads >= kMaxThreads) return;
  try {
    std::thread([state = state_] { work(state); }).detach();
    ++state_->threads;
  } catch (const std::system_error&) {
    // No thread is to be had now: one that works already will do it, or one for the next work.
  }
}

void Disposal::drop(uid_t user, Kind kind, UniqueFd fd) {
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(fd));
  drop(user, kind, std::move(fds));
}

bool Disposal::is_busy(uid_t user) const {
  const std::lock_guard lock(state_->mutex);
  const auto queue = state_->queues.find({user, Kind::Passed});
  return queue != state_->queues.end() && queue->second.waiting >= kMaxPassedOfUser;
}

bool Disposal::is_full() const {
  const std::lock_guard lock(state_->mutex);
  return state_->waiting >= state_->max_waiting;
}

PeerFd& PeerFd::operator=(PeerFd&& other) noexcept {
  if (this == &other) return *this;
  reset();
  disposal_ = other.disposal_;
  user_ = other.user_;
  fd_ = std::move(other.fd_);
  return *this;
}

PeerFd PeerFd::duplicate() const {
  PeerFd copy;
  copy.disposal_ = disposal_;
  copy.user_ = user_;
  copy.fd_.reset(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 3));
  return copy;
}

void PeerFd::reset() noexcept {
  if (fd_) disposal_->drop(user_, Disposal::Kind::Passed, std::move(fd_));
}

}  // namespace vtpm::supervisor
