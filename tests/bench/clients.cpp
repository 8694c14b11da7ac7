// SPDX-License-Identifier: Apache-2.0
// Two clients of one TPM that take turns, each with three objects of its own: what sharing a TPM costs a
// command.
//
// usage: bench_clients ROUNDS NAME=TCTI... [kernel=TCTI]
//
// A round is three HMACs by the one client, one with each of its keys, then three by the other. "kernel"
// imitates, with one client, what Linux' /dev/tpmrm0 does at every command of a space with three objects:
// loads their contexts, runs the command, saves and flushes them. Prints one line per target: NAME COMMANDS
// P50 P90, in microseconds a command.
#include "tests/bench/target.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kObjects = 3;

class Client {
 public:
  Client(const std::string& name, const std::string& tcti) : target_(name, tcti, false) {
    for (auto& key : keys_)
      key = target_.create_hmac_key();
  }
  ~Client() {
    for (const auto key : keys_)
      target_.flush(key);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void use(std::size_t key) { target_.hmac(keys_[key]); }

  void use_as_the_kernel_does(std::size_t key) {
    for (std::size_t i = 0; i < kObjects; ++i)
      if (saved_) keys_[i] = target_.load(contexts_[i]);
    target_.hmac(keys_[key]);
    for (std::size_t i = 0; i < kObjects; ++i) {
      contexts_[i] = target_.save(keys_[i]);
      target_.flush(keys_[i]);
    }
    saved_ = true;
  }

  void load_again() {
    for (std::size_t i = 0; i < kObjects; ++i)
      keys_[i] = target_.load(contexts_[i]);
    saved_ = false;
  }

 private:
  Target target_;
  std::array<ESYS_TR, kObjects> keys_{};
  std::array<TPMS_CONTEXT, kObjects> contexts_{};
  bool saved_ = false;
};

class Times {
 public:
  void add(const std::function<void()>& command) {
    const auto began = Clock::now();
    command();
    times_.push_back(std::chrono::duration<double, std::micro>(Clock::now() - began).count());
  }
  void print(const std::string& name) {
    std::sort(times_.begin(), times_.end());
    const std::size_t last = times_.size() - 1;
    std::printf("%s %zu %.2f %.2f\n", name.c_str(), times_.size(), times_[last / 2], times_[last * 9 / 10]);
  }

 private:
  std::vector<double> times_;
};

void alternate(const std::string& name, const std::string& tcti, long rounds) {
  Client first(name, tcti);
  Client second(name, tcti);
  Times times;
  for (long round = 0; round < rounds; ++round)
    for (Client* client : {&first, &second})
      for (std::size_t key = 0; key < kObjects; ++key)
        times.add([&] { client->use(key); });
  times.print(name);
}

void as_the_kernel(const std::string& name, const std::string& tcti, long rounds) {
  Client client(name, tcti);
  Times times;
  for (long round = 0; round < rounds; ++round)
    for (std::size_t key = 0; key < kObjects; ++key)
      times.add([&] { client.use_as_the_kernel_does(key); });
  client.load_again();
  times.print(name);
}

}  // namespace

int main(int argc, char** argv) {
  const long rounds = argc > 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: bench_clients ROUNDS NAME=TCTI... [kernel=TCTI]\n");
    return 2;
  }
  for (const std::string argument : std::span(argv, static_cast<std::size_t>(argc)).subspan(2)) {
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) {
      std::fprintf(stderr, "bench_clients: %s is not NAME=TCTI\n", argument.c_str());
      return 2;
    }
    const std::string name = argument.substr(0, equals);
    (name == "kernel" ? as_the_kernel : alternate)(name, argument.substr(equals + 1), rounds);
  }
  return 0;
}
