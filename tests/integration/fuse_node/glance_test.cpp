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
  Tpm tpm;
  Device device(tpm);
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

namespace {

// 64 threads that poll a file of the node for ever, and take no signals.
class Flood {
 public:
  explicit Flood(const Place& place) : file_(open_node(place, O_NONBLOCK)) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < 64; ++i)
      threads_.emplace_back([this] {
        pollfd p{file_.get(), POLLIN, 0};
        while (!stop_)
          (void)::poll(&p, 1, 0);
      });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  ~Flood() {
    stop_ = true;
    for (auto& thread : threads_)
      thread.join();
  }

 private:
  UniqueFd file_;
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

TEST_CASE("glance: many who poll do not hide the signal that cancels a command") {
  REQUIRE_FUSE();
  const Served served;
  const int status = in_child([&] {
    const Flood flood(served.managed);
    const UniqueFd fd = open_node(served.managed);
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, nullptr);
    const itimerval often{{0, 2000}, {0, 2000}};
    ::setitimer(ITIMER_REAL, &often, nullptr);
    u8 response[4096];
    // Of some a signal comes before they run.
    for (u32 i = 0; i < 12; ++i) {
      const Bytes key = create_rsa_primary(kOwner, 3072, i);
      const ssize_t written = ::write(fd.get(), key.data(), key.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) ::_exit(1);
      const ssize_t n = ::read(fd.get(), response, sizeof response);
      if (n < 14) ::_exit(2);
      const Bytes remove = command(0x165, Writer().add(handle_in(BytesView(response, 14))));
      while (::write(fd.get(), remove.data(), remove.size()) < 0)
        if (errno != EINTR) ::_exit(3);
      if (::read(fd.get(), response, sizeof response) != 10) ::_exit(4);
    }
    return 0;
  });
  CHECK(status == 0);
  CHECK(served.engine.link->status()->cancelled > 0);
}
