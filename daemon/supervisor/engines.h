// SPDX-License-Identifier: Apache-2.0
// Engines: made, ended and asked how they ended. Blocking (the "engines" workers); thread-safe.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/ipc/engine_link.h"

#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace vtpm::supervisor {

// One engine process with its TPM.
struct Engine {
  std::unique_ptr<ipc::EngineLink> link;
  UniqueFd pidfd;
  pid_t pid;

  // SIGKILL: for an engine that no longer answers.
  void kill() noexcept;
  // A conversation with an engine that serves tenants, who may keep it busy, is short: at most 5 s from now.
  void begin_conversation();
};

struct Manufactured {
  std::shared_ptr<Engine> engine;
  identity::Identity identity;
};

// Whether an error of an EngineLink means that the engine is of no further use.
bool is_fatal_to_engine(ErrorCode code) noexcept;

class Engines {
 public:
  // Starts the first zygote, and raises the limit of descriptors as far as it goes. Errors as
  // ipc::Zygote::start.
  static Result<std::unique_ptr<Engines>> start(const std::string& engine_path);

  // Forks an engine and provisions its TPM with the launch document measured. On an error no engine is left.
  // A zygote that has died is replaced.
  Result<Manufactured> manufacture(const std::string& launch_document);
  // Orderly TPM2_Shutdown, then the process's end; killed when it does not end by itself. The engine's link
  // is gone afterwards. An error says why the end was not orderly.
  Result<> retire(Engine& engine);
  // How an engine whose pidfd is readable ended, for people.
  std::string how_it_ended(pid_t pid);
  // An engine of an earlier vtpmd's zygote: nobody tells how it ends.
  void took_over(pid_t pid);
  // The zygote of now; valid as long as this object.
  ipc::Zygote& zygote();

 private:
  explicit Engines(std::string path) : path_(std::move(path)) {}
  Result<> start_zygote();
  Result<ipc::SpawnedEngine> spawn();

  std::string path_;
  std::mutex mutex_;  // guards zygotes_ and taken_over_
  std::set<pid_t> taken_over_;
  // The last one is in use. Dead ones stay: an anchor may hold a reference to the one that it was opened
  // with.
  std::vector<std::unique_ptr<ipc::Zygote>> zygotes_;
};

}  // namespace vtpm::supervisor
