// SPDX-License-Identifier: Apache-2.0
// LongCommand: a look at the clients while the engine's only thread is in libtpms.
//
// The commands that make RSA keys take tens to hundreds of milliseconds, and they are also those that libtpms
// lets be cancelled (CryptRsaGenerateKey asks between two primes). While one runs, a timer's signal handler
// looks every 2 ms whether who gave it is gone or has got a signal. Other commands run as ever.
#pragma once

#include "daemon/engine/tpm.h"

namespace vtpm::engine {

class LongCommand {
 public:
  // Called in a signal handler: async-signal-safe. Whether the command that runs shall be cancelled.
  using Look = bool (*)(void* context);

  // From here to the end of the scope `command` runs. `look` is called only if it may be a long one.
  LongCommand(BytesView command, Look look, void* context);
  ~LongCommand();
  LongCommand(const LongCommand&) = delete;
  LongCommand& operator=(const LongCommand&) = delete;

  // Once for each process and its children, before the jail.
  static Result<> install_handler();

 private:
  const bool armed_;
};

}  // namespace vtpm::engine
