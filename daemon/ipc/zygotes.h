// SPDX-License-Identifier: Apache-2.0
// The zygotes of one vtpmd, one after another.
#pragma once

#include "daemon/ipc/engine_link.h"

#include <functional>
#include <map>
#include <string_view>
#include <thread>
#include <vector>

namespace vtpm::ipc {

// All engines of a zygote have its address-space layout: who learns it of one knows it of all. So after
// `forks_each` engines a new zygote is executed, in the background, and forks the later ones. The old one
// stays, since it alone learns how its engines end, and is ended after the last of them. Thread-safe.
class Zygotes {
 public:
  static constexpr std::size_t kForksPerZygote = 4096;
  // Told, for the log, of what is not an error of a call. From any thread.
  using Report = std::function<void(std::string_view)>;

  // Starts the first. Errors as Zygote::start.
  static Result<std::unique_ptr<Zygotes>> start(std::string engine_path, int log_fd, Report report,
                                                std::size_t forks_each = kForksPerZygote);
  ~Zygotes();  // as Zygote's: engines live on
  Zygotes(const Zygotes&) = delete;
  Zygotes& operator=(const Zygotes&) = delete;

  // Zygote::spawn; a zygote that has died is replaced.
  Result<SpawnedEngine> spawn();
  // Zygote::exit_of, whichever zygote's the engine was.
  std::optional<EngineExit> exit_of(pid_t pid, std::chrono::milliseconds wait);
  // The one in use.
  std::shared_ptr<Zygote> newest();
  // How many there are now, and how many there have been.
  std::size_t alive();
  std::size_t started();

 private:
  using Shared = std::shared_ptr<Zygote>;

  Zygotes(std::string path, int log, Report report, std::size_t each)
      : path_(std::move(path)), log_(log), report_(std::move(report)), forks_each_(each) {}
  Result<> start_one();
  void start_next();
  // Takes those out that are no longer needed; destroy them without the lock.
  std::vector<Shared> take_childless();
  std::optional<EngineExit> take_exit(pid_t pid);

  std::string path_;
  int log_;
  Report report_;
  std::size_t forks_each_;

  std::mutex mutex_;              // guards what follows
  std::vector<Shared> zygotes_;   // older ones with engines, the one in use
  std::map<pid_t, Shared> of_;    // whose an engine is that nobody has asked about yet
  std::deque<EngineExit> exits_;  // not yet asked for, of zygotes that are gone
  std::size_t forks_ = 0;         // of the one in use
  std::size_t started_ = 0;
  bool starting_ = false;  // next_ runs
  std::thread next_;
};

}  // namespace vtpm::ipc
