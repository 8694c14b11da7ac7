// SPDX-License-Identifier: Apache-2.0
// The engines of durable instances together with what they are kept in: slot files and wrapped state keys.
// Blocking (the "makers" workers); thread-safe.
#pragma once

#include "daemon/supervisor/engines.h"
#include "daemon/supervisor/slot_files.h"
#include "daemon/supervisor/store.h"

namespace vtpm::supervisor {

struct NewDurable {
  Manufactured made;
  Durable row;
};

class DurableEngines {
 public:
  DurableEngines(Engines& engines, const std::string& state_dir) : engines_(engines), files_(state_dir) {}

  // A new TPM in new slot files under a new state key. On an error nothing is left.
  Result<NewDurable> make(const Secret& host_key, const std::string& id, const std::string& launch_document,
                          const EngineTerms& terms);
  // Continues from the slot files, after a TPM Reset. Damaged or rolled back: Corrupt, with the file's name
  // and what can be done; nothing is changed. What the tenant made impossible: Conflict.
  Result<Manufactured> resume(const Secret& host_key, const InstanceRow& row,
                              const identity::Identity& identity, const std::string& launch_document,
                              const EngineTerms& terms);
  // Ends the engine, if there is one, and removes the slot files.
  Result<> discard(const std::string& id, Engine* engine);

  const SlotFiles& files() const noexcept { return files_; }

 private:
  Engines& engines_;
  SlotFiles files_;
};

}  // namespace vtpm::supervisor
