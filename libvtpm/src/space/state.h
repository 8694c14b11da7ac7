// SPDX-License-Identifier: Apache-2.0
// All that the resource manager knows of its TPM.
#pragma once

#include "space/residency.h"
#include "space/session_queue.h"

#include <unordered_map>

namespace vtpm::space {

struct State {
  State(Transmit& transmit, Limits l) : tpm(transmit), limits(l) {}

  // Reads from the TPM what commands and how much room it has, and what sessions are active already. Does
  // nothing if that is known, or while the TPM is not started.
  Result<> prepare();
  // Nothing is in the TPM any more.
  void forget();

  // The space of an id; nullptr if it is not open.
  Space* find(SpaceId id);
  // Flushes what the space holds, but for sessions that its client has saved.
  void empty(Space& space);

  Transmit& tpm;
  Limits limits;
  InternalCommands commands{tpm};
  AttributeTable attributes;
  SessionTable sessions;
  Residency residency{commands, sessions};
  SessionQueue queue;
  std::unordered_map<SpaceId, std::unique_ptr<Space>> spaces;
  // The raw space outlives its openings.
  Space raw{Kind::Raw, {}};
  std::optional<SpaceId> raw_opening;
  Bytes outgoing;  // the command as it goes to the TPM; kept for its capacity
};

}  // namespace vtpm::space
