// SPDX-License-Identifier: Apache-2.0
// Engines: made, ended and asked how they ended. Blocking (the "engines" workers); thread-safe.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/ipc/zygotes.h"
#include "daemon/supervisor/slot_files.h"

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

namespace vtpm::supervisor {

// A conversation in all: with an engine that tenants may keep busy, and with one that has just answered, on a
// host that may be slow.
inline constexpr std::chrono::seconds kConversation{5};
inline constexpr std::chrono::seconds kFreeConversation{20};

// One engine process with its TPM.
struct Engine {
  std::unique_ptr<ipc::EngineLink> link;
  UniqueFd pidfd;
  pid_t pid;
  bool placed = false;  // in its container's cgroup: it runs as far as the container may

  // SIGKILL: for an engine that no longer answers.
  void kill() noexcept;
  // All that follows is over by then, from now.
  void begin_conversation(std::chrono::seconds limit = kConversation);
};

// What an engine is made with.
struct EngineTerms {
  ipc::EngineLimits limits;  // its tenants are held to these
  // The cgroup.procs, open for writing, of the cgroup that it runs in once it is made, before it serves
  // anybody. Empty: it stays in vtpmd's.
  std::shared_ptr<const UniqueFd> cgroup = {};
};

struct Manufactured {
  std::shared_ptr<Engine> engine;
  identity::Identity identity;
  std::uint64_t sequence = 0;  // of a durable TPM's last commit
};

// Where a durable TPM is kept, and what opens it.
struct Storage {
  std::string id;
  Secret state_key;
  std::uint64_t least_sequence;  // an older state is refused
  SlotFds slots;
};

// What an engine tells of itself within 500 ms. Timeout, or Busy while it owes an earlier answer: it has
// better things to do, or is frozen, and is not ended for that. After other errors it is of no further use,
// and killed.
Result<ipc::EngineStatus> status_if_free(Engine& engine);
// The sequence of a durable TPM's last commit, as its engine tells. One that cannot be: Malformed.
Result<std::uint64_t> committed_sequence(ipc::EngineLink& link);
// The same by status_if_free().
Result<std::uint64_t> committed_sequence_if_free(Engine& engine);

// Whether an error of an EngineLink means that the engine is of no further use.
bool is_fatal_to_engine(ErrorCode code) noexcept;

class Engines {
 public:
  // Starts the first zygote, and raises the limit of descriptors as far as it goes. Errors as
  // ipc::Zygote::start.
  static Result<std::unique_ptr<Engines>> start(const std::string& engine_path);

  // Forks an engine and provisions its TPM with the launch document measured. On an error no engine is left.
  // A zygote that has died is replaced. Of a cgroup that it cannot be moved into: Unavailable.
  Result<Manufactured> manufacture(const std::string& launch_document, const EngineTerms& terms);
  // The same, into new slot files.
  Result<Manufactured> manufacture_durable(const std::string& launch_document, Storage storage,
                                           const EngineTerms& terms);
  // An engine that continues from slot files, after a TPM Reset; the launch is measured anew. Errors as
  // EngineLink::power_on_durable and identity::resume. On an error no engine is left.
  Result<Manufactured> resume(const std::string& launch_document, Storage storage,
                              const identity::Identity& identity, const EngineTerms& terms);
  // Ends an engine that does not answer. What a durable TPM has answered is stored.
  void abandon(Engine& engine) { end(engine, true); }
  // Orderly TPM2_Shutdown, then the process's end; killed when it does not end by itself. The engine's link
  // is gone afterwards. An error says why the end was not orderly.
  Result<> retire(Engine& engine);
  // The same for a durable TPM: the sequence of its last commit, that of the shutdown.
  Result<std::uint64_t> stop(Engine& engine);
  // How an engine whose pidfd is readable ended, for people.
  std::string how_it_ended(pid_t pid);
  // An engine of an earlier vtpmd's zygote: nobody tells how it ends.
  void took_over(pid_t pid);
  // An engine of nobody's, for the anchor: not powered on.
  Result<ipc::SpawnedEngine> spawn() { return zygotes_->spawn(); }
  // What the engines' jail has here (ipc::kJail* bits).
  std::uint32_t jail() { return zygotes_->newest()->jail(); }

 private:
  explicit Engines(std::unique_ptr<ipc::Zygotes> zygotes) : zygotes_(std::move(zygotes)) {}
  Result<std::shared_ptr<Engine>> power_on(std::optional<Storage> storage, const EngineTerms& terms);
  bool end(Engine& engine, bool stuck);

  std::unique_ptr<ipc::Zygotes> zygotes_;
  std::mutex mutex_;  // guards taken_over_
  std::set<pid_t> taken_over_;
};

}  // namespace vtpm::supervisor
