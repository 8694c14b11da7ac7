// SPDX-License-Identifier: Apache-2.0
// The supervisor's end of the frames between vtpmd, the zygote and the engines (FORMATS.md: "Engine frames").
#pragma once

#include "daemon/ipc/engine_limits.h"
#include "daemon/ipc/engine_status.h"
#include "daemon/ipc/frame.h"

#include <vtpm/control/attach.h>
#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/secret.h>
#include <vtpm/os/unix_socket.h>
#include <vtpm/tpm/header.h>

#include <sys/types.h>

#include <array>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace vtpm::ipc {

using control::NodeKind;

// An instance's id, as the associated data of its slots has it.
using InstanceIdBytes = std::array<std::uint8_t, 8>;
inline constexpr std::size_t kStateKeySize = 32;  // bytes: AES-256

// One engine. Thread-safe: calls are serialised; each blocks its caller until the engine's answer or
// kEngineDeadline. An engine that does not answer in time (Timeout), breaks the protocol (Malformed) or is
// gone (Unreachable) is of no further use: the caller kills it.
class EngineLink {
 public:
  static constexpr std::chrono::seconds kEngineDeadline{30};

  explicit EngineLink(UniqueFd socket) noexcept : socket_(std::move(socket)) {}

  // All later calls together end by then, where their own deadline is not sooner. Empty: theirs alone.
  void set_deadline(Deadline total);

  // A duplicate of the socket, by which another process may speak with the engine after this one. Does not
  // wait for other calls. An engine that was given up: Unreachable.
  Result<UniqueFd> duplicate();
  // First of all on a link over a socket that another process has used: waits for the engine, and drops what
  // it still answers that process. The engine has then done all that was asked of it. Timeout: it is not
  // given up for it, and this is called again.
  Result<> take_over();

  // Initialises the TPM: manufactures it, or continues from `permanent` state (libtpms' permanent blob).
  // Power-on only: the caller sends TPM2_Startup. May be called again after shutdown() (a power cycle keeps
  // permanent state).
  Result<> power_on(BytesView permanent = {});
  // Initialises the TPM of a durable instance, before any other power-on: continues from the newest valid of
  // its two slot files (FORMATS.md: "Slot files"), or, when both are empty and `least_sequence` is 0,
  // manufactures a TPM and makes its first commit. The engine keeps the files, open for reading and writing,
  // and commits to them before a response leaves. Returns the sequence of the last commit. Power-on only: the
  // caller sends TPM2_Startup. Corrupt: neither slot can be used, or the newest is older than
  // `least_sequence`; the text says which slot ("slot a", "slot b") and why, the files are left as they are.
  Result<std::uint64_t> power_on_durable(const InstanceIdBytes& id, const Secret& state_key,
                                         std::uint64_t least_sequence, UniqueFd slot_a, UniqueFd slot_b);
  // One command at a locality, and its response; the response code is the caller's to look at.
  Result<Bytes> transmit(tpm::Locality locality, BytesView command);
  // TPM_IO_Hash_Start, _Data and _End at locality 4: PCR 17-22 become zeros, then PCR 17 is extended with
  // SHA-256(data). At most 64 KiB.
  Result<> hash_sequence(BytesView data);
  // Serve tenants on this descriptor (the engine gets a duplicate): a /dev/fuse, or what `channel`
  // (kChannel*) says.
  Result<> serve(NodeKind kind, int fd, std::uint8_t channel = kChannelFuse);
  // The same, and closes it.
  Result<> serve(NodeKind kind, UniqueFd fd, std::uint8_t channel = kChannelFuse) {
    return serve(kind, fd.get(), channel);
  }
  // The same for several, asked for together: the engine, which works off all that was asked of it before a
  // tenant's command, serves all before the first command of the first one's tenants can keep it. What it
  // says of each, in order. An error: of none is known whether it is served, and the engine is of no use.
  struct Served {
    NodeKind kind;
    int fd;
    std::uint8_t channel;
  };
  Result<std::vector<Result<>>> serve_all(std::span<const Served> nodes);
  // serve() for who must not wait: asked here, and at once; served() has the answer.
  Result<> ask_to_serve(const Served& node);
  // Timeout: not yet, and this is called again; nothing else is asked before.
  Result<> served();
  // What tenants may use from now on: before they are served, and again when it changes. Not after
  // shutdown().
  Result<> set_limits(const EngineLimits& limits);
  // Also tells that the engine answers.
  Result<EngineStatus> status();
  // The same of an engine that may have better things to do, by `deadline`. Timeout: it is not given up for
  // it, and goes on as if it had not been asked. While it still owes an answer it is not asked again:
  // Busy, at once. take_over() waits for the answer that is owed.
  Result<EngineStatus> status_if_free(Deadline deadline);
  // libtpms' permanent state blob.
  Result<Bytes> permanent_state();
  // TPM2_Shutdown(CLEAR) and power-off, in order. The engine then exits when the link is destroyed.
  Result<> shutdown();

 private:
  Result<Bytes> exchange(Verb verb, BytesView payload, std::span<const int> fds = {});
  Deadline deadline() const;
  Result<std::uint32_t> request(Verb verb, BytesView payload, std::span<const int> fds, Deadline deadline);
  Result<Transfer> reply_to(Verb verb, std::uint32_t id, Deadline deadline);
  Result<Transfer> receive_reply(Deadline deadline);
  void give_up();

  std::mutex mutex_;    // of the conversation: whoever has it may wait for the engine
  std::mutex closing_;  // held for moments: socket_ is closed, or duplicated, with this one
  UniqueFd socket_;
  std::uint32_t next_id_ = 0;
  std::optional<std::uint32_t> owed_;  // the id of a status that was not waited for
  std::uint32_t asked_to_serve_ = 0;   // the id of ask_to_serve()'s request
  Deadline total_;
};

struct SpawnedEngine {
  std::unique_ptr<EngineLink> link;
  UniqueFd pidfd;  // of the engine; readable when it has ended
  pid_t pid;
};

// How an engine ended, as the zygote reaped it.
struct EngineExit {
  pid_t pid;
  int status;                    // wait(2) status
  std::string describe() const;  // "exit status 0", "killed by signal 31 (SIGSYS: forbidden system call)"
};

// The zygote: the process that forks engines, before libtpms is ever initialised in it. Thread-safe.
class Zygote {
 public:
  // Sanitizer builds on a loaded machine start slowly.
  static constexpr std::chrono::seconds kStartPatience{20};
  static constexpr std::chrono::seconds kSpawnPatience{10};

  // Starts the vtpm-engine binary with no environment and no descriptors but its socket and `log` (its
  // standard error). Not executable, or not ready in time: Configuration, with the path.
  static Result<std::unique_ptr<Zygote>> start(const std::string& engine_path, int log_fd,
                                               std::chrono::milliseconds patience = kStartPatience);
  ~Zygote();  // ends the zygote; engines live on until their links are destroyed

  // Forks a jailed engine. A dead zygote: Unreachable (start another); one that does not answer in time:
  // Timeout, or lies: Malformed (likewise).
  Result<SpawnedEngine> spawn(std::chrono::milliseconds patience = kSpawnPatience);
  // Waits at most `wait` for the exit status of an engine whose pidfd is readable.
  std::optional<EngineExit> exit_of(pid_t pid, std::chrono::milliseconds wait);
  // When none of its engines is left: the exits that were not asked for; it may be destroyed then. Does not
  // wait, neither for an event nor for another call.
  std::optional<std::deque<EngineExit>> childless();
  int pidfd() const noexcept { return pidfd_.get(); }
  // What its jail, and that of its engines, has (kJail* bits).
  std::uint32_t jail() const noexcept { return jail_; }

 private:
  static constexpr std::size_t kMaxExits = 4096;

  Zygote(UniqueFd socket, UniqueFd pidfd) noexcept : socket_(std::move(socket)), pidfd_(std::move(pidfd)) {}

  // Receives until a reply (returned) or the deadline; exits that come in between are kept for exit_of.
  Result<Transfer> receive(Deadline deadline);
  void keep_exit(const Transfer& event);

  std::mutex mutex_;
  UniqueFd socket_;
  UniqueFd pidfd_;
  std::uint32_t jail_ = 0;
  std::size_t engines_ = 0;  // that have not been told to have ended
  std::uint32_t next_id_ = 0;
  std::deque<EngineExit> exits_;  // not yet asked for, the newest kMaxExits
};

}  // namespace vtpm::ipc
