// SPDX-License-Identifier: Apache-2.0
// The host state key in memory: asked of the anchor once, when it is first needed. One thread.
#pragma once

#include "daemon/anchor/anchor.h"
#include "daemon/supervisor/async.h"
#include "daemon/supervisor/workers.h"

#include <vtpm/os/secret.h>

namespace vtpm::supervisor {

class HostKey {
 public:
  using Shared = std::shared_ptr<const Secret>;

  HostKey(Workers& workers, anchor::Anchor& anchor, std::string state_dir)
      : workers_(workers), anchor_(anchor), state_dir_(std::move(state_dir)) {}

  // `in_use`: keys are wrapped by it, so it must be there: no other is ever made then. Missing or damaged:
  // Corrupt, naming the file. Asked for again after an error, it is looked for again.
  Task<Shared> get(bool in_use);

 private:
  Workers& workers_;
  anchor::Anchor& anchor_;
  std::string state_dir_;
  Shared key_;
};

}  // namespace vtpm::supervisor
