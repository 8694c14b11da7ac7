// SPDX-License-Identifier: Apache-2.0
// Closing what peers gave: their connections and the descriptors that they passed. A peer decides how long
// the close(2) of the last duplicate takes, and so does who sent descriptors into a socket that is closed
// before they were received: a TCP socket with SO_LINGER waits for a network, a file of a FUSE server for
// that server. So nothing of a peer's is closed on the thread that serves everybody.
#pragma once

#include <vtpm/os/unique_fd.h>

#include <sys/types.h>

#include <functional>
#include <memory>
#include <vector>

namespace vtpm::supervisor {

// Threads of its own, as many as needed. A user's closes of one kind are done one after the other: what never
// returns holds up one thread and that user alone. A thread that waits in close(2) is interrupted each
// millisecond: that ends SO_LINGER, but not the wait for a FUSE server. Thread-safe.
class Disposal {
 public:
  enum class Kind {
    Connection,  // vtpmd's own end of one, with what may have been sent into it
    Passed,      // received from a peer: close(2) asks a file's server, too (flush)
  };

  // Of all users. A user who is to hold all of them has to have that many uids.
  static constexpr std::size_t kMaxThreads = 256;
  // Descriptors of kind Passed of one user that wait: eight full messages.
  static constexpr std::size_t kMaxPassedOfUser = 64;

  // Full with `max_waiting` descriptors.
  explicit Disposal(std::size_t max_waiting);
  // As full with a quarter of the descriptors that this process may have.
  Disposal();
  Disposal(const Disposal&) = delete;
  Disposal& operator=(const Disposal&) = delete;
  // Does not wait: what hangs must not keep vtpmd.
  ~Disposal() = default;

  // Closes them, soon or when those before them are closed; then `done` is called, on any thread. Root's are
  // closed at once, on this one: root needs no descriptors to stop vtpmd, and shall not wait for others.
  void drop(uid_t user, Kind kind, std::vector<UniqueFd> fds, std::function<void()> done = {});
  void drop(uid_t user, Kind kind, UniqueFd fd);

  // So many of what the user passed are not closed yet that no more are taken.
  bool is_busy(uid_t user) const;
  // So many descriptors in all wait that no more connections are accepted.
  bool is_full() const;

 private:
  struct State;
  static void work(const std::shared_ptr<State>& state);
  std::shared_ptr<State> state_;  // the threads', too
};

// A descriptor that a peer has passed: whoever destroys it, it is closed by the disposal.
class PeerFd {
 public:
  PeerFd() noexcept = default;
  // `disposal` outlives it.
  PeerFd(Disposal& disposal, uid_t user, UniqueFd fd) noexcept
      : disposal_(&disposal), user_(user), fd_(std::move(fd)) {}
  PeerFd(PeerFd&&) noexcept = default;
  PeerFd& operator=(PeerFd&& other) noexcept;
  ~PeerFd() { reset(); }

  int get() const noexcept { return fd_.get(); }
  explicit operator bool() const noexcept { return bool(fd_); }
  // Empty: there is no room for another descriptor, says errno.
  PeerFd duplicate() const;
  void reset() noexcept;

 private:
  Disposal* disposal_ = nullptr;
  uid_t user_ = 0;
  UniqueFd fd_;
};

}  // namespace vtpm::supervisor
