// SPDX-License-Identifier: Apache-2.0
// The resource manager: many clients on a TPM that has three object slots, three loaded and 64 active
// sessions.
//
// Each client has a space of its own: its transient objects under virtual handles, and its sessions. Contexts
// are swapped lazily: they leave the TPM only when another space needs the room, so that a client that is
// alone never pays for it. One thread; nothing blocks but the TPM.
//
// What a client can tell from the bare TPM, beyond having room for more:
// - TPM2_GetCapability shows a space its own objects and sessions, but not through an audit or encrypt
// session:
//   those get the TPM's own answer, since its response HMAC covers it.
// - An active session may be taken from its owner when all are in use (SessionWait): it then answers as one
// that
//   was flushed.
// - Where command audit is on for ContextSave, ContextLoad or FlushContext (TPM2_SetCommandCodeAuditStatus),
//   swaps are in the audit digest too.
// - An exclusive audit session ends by a command of any client, not only of its own.
// - TPM2_IncrementalSelfTest lists as still to be tested neither what other clients nor what swaps have used.
#pragma once

#include <vtpm/space/transmit.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <variant>

namespace vtpm::space {

using Clock = std::chrono::steady_clock;

enum class Kind {
  Managed,     // as /dev/tpmrm0: whatever it holds is flushed when it is closed
  Raw,         // as /dev/tpm0: the TPM's own limits and handles; kept over opens
  Supervisor,  // vtpmd's own commands, which neither limits nor a full TPM may stop
};

// Names a space; never used again.
enum class SpaceId : std::uint64_t {};

// Of one TPM. Beyond them commands are answered as by a full TPM (ObjectMemory, SessionHandles).
struct Limits {
  std::size_t spaces = 256;             // managed ones that are open at a time
  std::size_t objects_per_space = 32;   // transient objects of a managed space
  std::size_t sessions_per_space = 64;  // active sessions of a managed space
};

// The command needs an active session and all are taken: run it again at `until` at the latest, when the
// oldest session of somebody else may be evicted. Waiters are served first come first served.
struct SessionWait {
  Clock::time_point until;
};

using Outcome = std::variant<Bytes, SessionWait>;

class ResourceManager {
 public:
  // The TPM is borrowed and outlives this. Its command attributes are read from it
  // (TPM2_GetCapability(COMMANDS)) at the first command after a TPM2_Startup.
  explicit ResourceManager(Transmit& tpm, Limits limits = {});
  ~ResourceManager();
  ResourceManager(const ResourceManager&) = delete;
  ResourceManager& operator=(const ResourceManager&) = delete;

  // From now on; what spaces hold already stays.
  void set_limits(const Limits& limits);

  // Over Limits::spaces: Exhausted.
  Result<SpaceId> open(Kind kind);
  // Whether another managed space may be opened.
  bool has_room() const;
  // Flushes what the space holds. Sessions that its client has saved by TPM2_ContextSave stay active: whoever
  // has the context may load it again, as with the Linux driver's /dev/tpmrm0.
  void close(SpaceId space);

  // Runs one command, which has passed tpm::check_command(), and returns the client's response. A command
  // that got a SessionWait is given again, unchanged, or withdrawn.
  Result<Outcome> execute(SpaceId space, tpm::Locality locality, BytesView command, Clock::time_point now);
  // The client of a command that waits for a session is gone.
  void withdraw(SpaceId space);

  // The TPM was powered off and on: no object and no session is left in it.
  void power_cycled();

  // For people and metrics.
  struct Counters {
    std::uint64_t swaps = 0;      // contexts saved to make room
    std::uint64_t evictions = 0;  // sessions taken from their owners
    std::size_t spaces = 0;       // open now, of all kinds
  };
  Counters counters() const;

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace vtpm::space
