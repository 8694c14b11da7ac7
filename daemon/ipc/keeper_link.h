// SPDX-License-Identifier: Apache-2.0
// The supervisor's end of the frames between vtpmd and the keeper, the process that holds the engines'
// sockets while no vtpmd runs (FORMATS.md: "Engine frames"; PRIVSEP.md).
#pragma once

#include "daemon/ipc/frame.h"
#include "daemon/ipc/held.h"

#include <chrono>
#include <span>
#include <string>
#include <vector>

namespace vtpm::ipc {

struct Held {
  HeldKey key;
  UniqueFd fd;
};

// A connection with the keeper; it serves one at a time. One thread at a time; each call blocks until the
// keeper's answer or kKeeperDeadline. After any error but Exhausted and Conflict the link is of no further
// use: connect again.
class KeeperLink {
 public:
  static constexpr std::chrono::seconds kKeeperDeadline{10};

  explicit KeeperLink(UniqueFd socket) noexcept : socket_(std::move(socket)) {}

  // How long answers() waits: a keeper answers in microseconds, or has been stopped.
  static constexpr std::chrono::seconds kAnswers{2};

  // Connects to the keeper that listens at `path`. None: Unreachable.
  static Result<KeeperLink> connect(const std::string& path);
  // Starts a keeper (vtpm-engine at `engine_path`) on `listener`, a listening SEQPACKET socket bound to
  // `path`, and connects to it. Not executable: Configuration.
  static Result<KeeperLink> start(const std::string& engine_path, const UniqueFd& listener,
                                  const std::string& path, int log_fd);

  // Holds a duplicate of `fd` (borrowed); what it held under that key is closed. No room: Exhausted.
  Result<> hold(const HeldKey& key, int fd);
  // Closes what it holds under that key, or all of an instance. Nothing there is not an error.
  Result<> drop(const HeldKey& key);
  Result<> release(std::uint64_t instance);
  // Duplicates of all that it holds, in the order of the keys.
  Result<std::vector<Held>> recall();
  // Ends the keeper. It holds something: Conflict.
  Result<> quit();
  // Whether the keeper serves this connection, within kAnswers.
  Result<> answers();
  // For people: the process that listened when this link was connected.
  Result<pid_t> pid() const;
  // Not after an error that made the link useless.
  bool is_open() const noexcept { return static_cast<bool>(socket_); }
  // The keeper may serve another connection then. Whoever watches this one sees it hang up.
  void close() noexcept;

  // A duplicate of the connection: it hangs up (POLLHUP) when the keeper is gone, has cut it off, or when the
  // link was closed or given up after an error.
  Result<UniqueFd> watch() const;

 private:
  Result<Transfer> exchange(Verb verb, BytesView payload, std::span<const int> fds = {},
                            std::chrono::seconds patience = kKeeperDeadline);

  UniqueFd socket_;
  std::uint32_t next_id_ = 0;
};

}  // namespace vtpm::ipc
