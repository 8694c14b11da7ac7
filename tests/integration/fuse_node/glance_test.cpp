// SPDX-License-Identifier: Apache-2.0
// The look at the clients while a command runs long: bounded, fair to the nodes, and it sees who gives up.
#include "daemon/engine/fuse_mount.h"
#include "tests/integration/fuse_node/served.h"

#include <vtpm/os/file.h>

#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <thread>

using namespace vtpm;
using namespace vtpm::engine;
using namespace vtpm::test;

namespace {

constexpr unsigned kThreads = 200;  // that ask at the same time, several times what a glance takes

// A process has one, and here it is never powered on.
Tpm& own_tpm() {
  static Tpm tpm;
  return tpm;
}

// A node that this process serves, without a TPM behind it.
struct OwnNode {
  Place place;
  FuseMount mount;
  UniqueFd file;

  explicit OwnNode(Device& device)
      : mount(served_end(place), device, NodeKind::Managed, [](const Endpoint&) {}) {
    std::atomic<bool> open{false};
    std::thread opener([&] {
      file = open_node(place, O_NONBLOCK);
      open = true;
    });
    while (!open)
      serve();
    opener.join();
    REQUIRE(file);
  }
  // As the engine's loop does. Somebody must ask, or be about to.
  void serve() {
    Wait wait;
    mount.wait_for(wait);
    if (::poll(wait.polled.data(), wait.polled.size(), 10) > 0) mount.handle(wait.polled, true);
    mount.answer_polls();
  }
  // Waits for a request.
  bool comes(int milliseconds) {
    Wait wait;
    mount.wait_for(wait);
    return ::poll(wait.polled.data(), wait.polled.size(), milliseconds) > 0;
  }
  static UniqueFd served_end(Place& place) {
    UniqueFd fuse = place.mount();
    REQUIRE(::fcntl(fuse.get(), F_SETFL, O_NONBLOCK) == 0);
    return fuse;
  }
};

// Threads that are in poll(2) of a file, each once.
class Pollers {
 public:
  explicit Pollers(const UniqueFd& file) {
    for (unsigned i = 0; i < kThreads; ++i)
      threads_.emplace_back([this, fd = file.get()] {
        tasks_[started_++] = ::gettid();
        pollfd p{fd, POLLIN, 0};
        (void)::poll(&p, 1, 0);
        ++done_;
      });
    while (started_ < kThreads || !all_wait())
      std::this_thread::yield();
  }
  ~Pollers() {
    for (auto& thread : threads_)
      thread.join();
  }
  unsigned done() const { return done_; }

 private:
  // For their answers, all of them: /proc says that they sleep.
  bool all_wait() const {
    return std::ranges::all_of(tasks_, [](const std::atomic<pid_t>& task) {
      const auto stat = read_file("/proc/self/task/" + std::to_string(task) + "/stat", 4096);
      return stat && as_text(*stat).find(") S ") != std::string_view::npos;
    });
  }

  std::array<std::atomic<pid_t>, kThreads> tasks_{};
  std::atomic<unsigned> started_{0};
  std::atomic<unsigned> done_{0};
  std::vector<std::thread> threads_;
};

class Order final : public Endpoint {
 public:
  Order(std::vector<int>& order, int number) : order_(order), number_(number) {}
  NodeKind kind() const noexcept override { return NodeKind::Managed; }
  bool gone() const noexcept override { return false; }
  int error() const noexcept override { return 0; }
  void wait_for(Wait&) override {}
  void handle(std::span<const pollfd>, bool) override {}
  void catch_up() override {}
  bool glance(KeptRequests&, GlanceBudget& budget) override {
    unsigned taken = 0;
    while (budget.take(taken))
      ++taken;
    most = std::max(most, taken);
    order_.push_back(number_);
    return false;
  }
  unsigned most = 0;

 private:
  std::vector<int>& order_;
  const int number_;
};

}  // namespace

TEST_CASE("glance: it takes at most 64 of the requests that wait at a device, and all of them in time") {
  REQUIRE_FUSE();
  Device device(own_tpm());
  OwnNode node(device);
  const auto kept = std::make_unique<KeptRequests>();
  Pollers pollers(node.file);
  while (pollers.done() < kThreads) {
    GlanceBudget budget(1);
    node.mount.glance(*kept, budget);
    REQUIRE(budget.taken() > 0);
    REQUIRE(budget.taken() <= 64);
  }
  node.file.reset();
  node.serve();
}

TEST_CASE("glance: each node has its share, and a turn to be the first") {
  std::vector<int> order;
  std::vector<std::unique_ptr<Endpoint>> nodes;
  for (int i = 0; i < 3; ++i)
    nodes.push_back(std::make_unique<Order>(order, i));
  KeptRequests kept;
  for (std::size_t tick = 0; tick < 4; ++tick) {
    GlanceBudget budget(nodes.size());
    CHECK_FALSE(glance_at(nodes, tick, kept, budget));
    CHECK(budget.taken() >= nodes.size());  // whatever the time
    CHECK(budget.taken() <= 64);
  }
  CHECK(order == std::vector<int>{0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2});
  for (const auto& node : nodes)
    CHECK(static_cast<const Order&>(*node).most <= 64 / 3);
  GlanceBudget budget(0);
  CHECK_FALSE(glance_at({}, 1, kept, budget));
}

TEST_CASE("kept requests: so many, and closes and interrupts have room of their own") {
  REQUIRE_FUSE();
  using Kind = KeptRequests::Kind;
  Device device(own_tpm());
  OwnNode node(device);
  const auto kept = std::make_unique<KeptRequests>();
  std::size_t others = 0;
  const std::size_t size = GENERATE(40U, 4176U, 8272U);
  for (; kept->keep(node.mount, size, Kind::Other); ++others)
    REQUIRE(kept->room().size() == kFuseBuffer);
  CHECK(others == std::min(KeptRequests::kMostOthers, KeptRequests::kMostBytes / size));
  if (size == 4176) CHECK(others >= 256);  // the largest command of each file that a TPM has by default
  std::size_t ends = 0;
  for (; !kept->room().empty(); ++ends) {
    kept->room()[0] = 7;
    REQUIRE(kept->keep(node.mount, 64, ends % 2 == 0 ? Kind::Close : Kind::Interrupt));
  }
  CHECK(ends == KeptRequests::kMostEnds);
  CHECK_FALSE(kept->keep(node.mount, 64, Kind::Close));
  std::vector<std::size_t> sizes;
  CHECK(kept->work_off([&](FuseMount&, BytesView request) {
    if (request.size() == 64 && request[0] != 7) FAIL("another request");
    sizes.push_back(request.size());
  }));
  REQUIRE(sizes.size() == others + ends);
  CHECK(std::count(sizes.begin(), sizes.end(), 64U) == static_cast<std::ptrdiff_t>(ends));
  CHECK(std::all_of(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(ends / 2),
                    [](std::size_t one) { return one == 64; }));  // the closes
  CHECK(kept->room().size() == kFuseBuffer);
  CHECK_FALSE(kept->work_off([](FuseMount&, BytesView) {}));
  node.file.reset();
  node.serve();
}

TEST_CASE("glance: who writes while there is no room is refused, and a close is kept") {
  REQUIRE_FUSE();
  Device device(own_tpm());
  OwnNode node(device);
  const auto kept = std::make_unique<KeptRequests>();
  while (kept->keep(node.mount, 40, KeptRequests::Kind::Other)) {
  }
  const auto glance = [&] {
    GlanceBudget budget(1);
    node.mount.glance(*kept, budget);
  };
  std::atomic<int> error{-1};
  std::thread writer([&] { error = error_of(write_to(node.file, get_random(8))); });
  while (error < 0)
    if (node.comes(10)) glance();
  writer.join();
  CHECK(error == EBUSY);
  node.file.reset();
  REQUIRE(node.comes(30000));
  glance();
  std::size_t closes = 0;
  kept->work_off([&](FuseMount&, BytesView request) {
    if (FuseSession::kind_of(request) != KeptRequests::Kind::Close) return;
    ++closes;
    node.mount.handle_kept(request);
  });
  CHECK(closes == 1);
}

namespace {

// 64 threads that take no signals and use a file of their own each, for ever: they poll it, or write more to
// it than a command may be.
class Flood {
 public:
  enum class Of { Polls, Writes };
  explicit Flood(const Place& place, Of what = Of::Polls) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < 64; ++i)
      threads_.emplace_back([this, what, &place] {
        const UniqueFd file = open_node(place, what == Of::Polls ? O_NONBLOCK : 0);
        Bytes large(8192);
        while (!stop_) {
          pollfd p{file.get(), POLLIN, 0};
          if (what == Of::Polls)
            (void)::poll(&p, 1, 0);
          else if (::write(file.get(), large.data(), large.size()) > 0)
            (void)!::read(file.get(), large.data(), large.size());
        }
      });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Flood() {
    stop_ = true;
    for (auto& thread : threads_)
      thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE("glance: many who poll keep nobody from his keys") {
  REQUIRE_FUSE();
  const Served served;
  const int status = in_child([&] {
    const Flood flood(served.managed);
    const UniqueFd fd = open_node(served.managed);
    u8 response[4096];
    for (u32 i = 0; i < 4; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 2048, i);
      if (::write(fd.get(), key.data(), key.size()) < 0) ::_exit(1);
      const ssize_t n = ::read(fd.get(), response, sizeof response);
      if (n < 14 || code_of(BytesView(response, static_cast<std::size_t>(n))) != 0) ::_exit(2);
      const Bytes remove = command(0x165, Writer().add(handle_in(BytesView(response, 14))));
      if (::write(fd.get(), remove.data(), remove.size()) < 0) ::_exit(3);
      if (::read(fd.get(), response, sizeof response) != 10) ::_exit(4);
    }
    return 0;
  });
  CHECK(status == 0);
}

TEST_CASE("glance: many who poll or write do not hide the signal that cancels a command") {
  REQUIRE_FUSE();
  const Served served;
  const auto what = GENERATE(Flood::Of::Polls, Flood::Of::Writes);
  const int status = in_child([&] {
    const Flood flood(served.managed, what);
    const UniqueFd fd = open_node(served.managed);
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    u8 response[4096];
    int interrupted = 0;
    for (u32 i = 0; i < 12; ++i) {
      const itimerval soon{{0, 20000}, {0, 20000}};  // when the others' requests are there
      ::setitimer(ITIMER_REAL, &soon, nullptr);
      const Bytes key = create_rsa_primary(kOwner, 3072, i);
      const ssize_t written = ::write(fd.get(), key.data(), key.size());
      if (written < 0 && errno == EINTR) ++interrupted;
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) ::_exit(1);
      const ssize_t n = ::read(fd.get(), response, sizeof response);
      if (n < 14) ::_exit(2);
      const Bytes remove = command(0x165, Writer().add(handle_in(BytesView(response, 14))));
      while (::write(fd.get(), remove.data(), remove.size()) < 0)
        if (errno != EINTR) ::_exit(3);
      if (::read(fd.get(), response, sizeof response) != 10) ::_exit(4);
    }
    // After three in a row one is not cancelled; some keys are made before the signal.
    return interrupted >= 5 ? 0 : 5;
  });
  CHECK(status == 0);
  CHECK(served.engine.link->status()->cancelled > 0);
}
