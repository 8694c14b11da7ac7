// SPDX-License-Identifier: Apache-2.0
// The host state key in memory: asked of the anchor once, when it is first needed. One thread.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/supervisor/async.h"
#include "daemon/supervisor/epochs.h"
#include "daemon/supervisor/workers.h"

#include <vtpm/os/secret.h>

#include <chrono>
#include <optional>
#include <set>

namespace vtpm::supervisor {

class HostKey {
 public:
  using Shared = std::shared_ptr<const Secret>;

  HostKey(Workers& workers, anchor::Anchor& anchor, std::string state_dir,
          std::chrono::milliseconds patience = kAnchorPatience)
      : workers_(workers), anchor_(anchor), state_dir_(std::move(state_dir)), patience_(patience) {}

  // `in_use`: keys are wrapped by it, so it must be there: no other is ever made then. Missing or damaged:
  // Corrupt, naming the file. Asked for again after an error, it is looked for again. An anchor that does not
  // answer: Timeout after the patience; what it answers later is kept.
  Task<Shared> get(bool in_use);
  // vtpmd stops: who waits for the anchor, now or later, gets Unavailable.
  void give_up();

 private:
  struct Question {
    std::optional<Result<Shared>> answer;
    asio::steady_timer* waiting = nullptr;  // its caller's
  };
  asio::awaitable<void> ask(bool in_use, std::shared_ptr<Question> question);

  Workers& workers_;
  anchor::Anchor& anchor_;
  std::string state_dir_;
  std::chrono::milliseconds patience_;
  Shared key_;
  std::set<asio::steady_timer*> waiting_;
  bool given_up_ = false;
};

}  // namespace vtpm::supervisor
