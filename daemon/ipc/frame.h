// SPDX-License-Identifier: Apache-2.0
// The frames between vtpmd, the zygote, the engines and the keeper: one frame per SEQPACKET message
// (FORMATS.md, "Engine frames"). Both sides use this file; what either receives is hostile until decode() and
// the table have agreed.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/os/unix_socket.h>

#include <string_view>

namespace vtpm::ipc {

inline constexpr std::uint32_t kFrameMagic = 0x5654504d;  // "VTPM"
inline constexpr std::size_t kFrameHeaderSize = 20;       // bytes
inline constexpr std::size_t kMaxPayload = 65536;         // bytes, of one frame
// Bytes of a transfer that continues over several frames: above libtpms' largest permanent state.
inline constexpr std::size_t kMaxTransfer = 1 << 20;

enum class Verb : std::uint16_t {
  PowerOn = 1,         // permanent state blob, or nothing -> nothing
  Transmit = 2,        // locality u8, command -> response
  HashSequence = 3,    // the data -> nothing
  Serve = 4,           // node kind u8, channel u8 (kServe*, kChannel*), a descriptor -> nothing
  PermanentState = 5,  // nothing -> permanent state blob
  Shutdown = 6,        // nothing -> nothing
  PowerOnDurable =
      7,         // instance id 8 bytes, state key 32 bytes, least sequence u64, two slots -> sequence u64
  Status = 8,    // nothing -> counters (EngineStatus)
  Limits = 9,    // what tenants may use (EngineLimits) -> nothing
  Spawn = 16,    // the engine's socket -> pid u32, pidfd
  Ready = 17,    // event: the zygote is jailed and serves; kJail* u32
  Exited = 18,   // event: pid u32, wait status u32
  Hold = 32,     // what is held (held.h), a descriptor -> nothing
  Drop = 33,     // what is held -> nothing
  Release = 34,  // instance id 8 bytes -> nothing
  Recall = 35,   // what is held, or nothing -> what is held next after it, its descriptor
  Quit = 36,     // nothing -> nothing
};

// The node kinds of Verb::Serve.
inline constexpr std::uint8_t kServeManaged = 0;
inline constexpr std::uint8_t kServeRaw = 1;
// What the descriptor of Verb::Serve is.
inline constexpr std::uint8_t kChannelFuse = 0;      // a /dev/fuse whose session is new, or goes on
inline constexpr std::uint8_t kChannelOrphaned = 1;  // a /dev/fuse whose engine has died
inline constexpr std::uint8_t kChannelSocket = 2;    // a listening stream socket

// What a zygote's jail has beyond the least (bits of Verb::Ready's payload), as far as the kernel and the
// limits of vtpmd permit it.
inline constexpr std::uint32_t kJailNamespaces = 1;     // user, mount, network, IPC, UTS and cgroup
inline constexpr std::uint32_t kJailEmptyRoot = 2;      // no path names a file
inline constexpr std::uint32_t kJailPidNamespaces = 4;  // each engine is alone in one
inline constexpr std::uint32_t kJailLandlock = 8;
inline constexpr std::uint32_t kJailNoExecGain = 16;    // PR_SET_MDWE
inline constexpr std::uint32_t kJailLockedMemory = 32;  // all of an engine's memory, not its keys alone

// Who a request is for; an event goes to the supervisor.
enum class Receiver { Engine, Zygote, Supervisor, Keeper };

// The state of the engine's TPM in which a verb is permitted (bits).
inline constexpr unsigned kWhenNever = 1;    // before the first power-on
inline constexpr unsigned kWhenOn = 2;       // powered on
inline constexpr unsigned kWhenStopped = 4;  // after a shutdown

// Exit statuses of vtpm-engine, of the zygote and the keeper as of an engine. 0 is an orderly end.
inline constexpr int kExitUsage = 64;     // not started by vtpmd
inline constexpr int kExitProtocol = 65;  // a malformed or unpermitted frame on the control socket
inline constexpr int kExitJail = 66;      // a step of the jail failed
inline constexpr int kExitBug = 70;       // a broken invariant; the log says which

// What is permitted: the order of the protocol is this data. An engine ends itself on anything else.
struct VerbRow {
  Verb verb;
  std::string_view name;
  Receiver receiver;
  unsigned when;             // kWhen* bits; 0 where the receiver is not an engine
  std::size_t request_fds;   // exactly as many, in the first frame (of an event, too)
  std::size_t reply_fds;     // of a successful reply; an error carries none
  std::size_t request_size;  // largest payload, bytes
  std::size_t reply_size;    // of a successful reply
};
// nullptr for an unknown verb.
const VerbRow* find_verb(std::uint16_t verb) noexcept;

// What goes before the payload. In requests and events status is 0; in replies 0 or an ErrorCode, the payload
// then being its text.
struct FrameHead {
  Verb verb;
  bool reply = false;
  bool more = false;  // the payload continues in the next frame
  std::uint32_t id = 0;
  std::uint32_t status = 0;
};
struct Frame {
  FrameHead head;
  BytesView payload;  // into the decoded bytes
};

// Payloads over kMaxPayload are a bug of the caller.
Bytes encode(const FrameHead& head, BytesView payload);
// Malformed: wrong magic, unknown verb or flag, a length that disagrees, a status where none may be.
Result<Frame> decode(BytesView bytes);

// A whole transfer.
struct Transfer {
  FrameHead head;
  Bytes payload;
  std::vector<UniqueFd> fds;
};
// Sends a transfer as one frame, or as several if it is longer than kMaxPayload. Errors as send_message.
Result<> send_transfer(int socket, FrameHead head, BytesView payload, std::span<const int> fds = {},
                       Deadline deadline = {});
// Receives one. Malformed: what decode() refuses, parts that do not belong together, sizes and descriptors
// that the table does not permit. The peer's end: Unreachable.
Result<Transfer> receive_transfer(int socket, Deadline deadline = {});

// An error as a reply carries it. Unknown codes become Malformed; texts are cut at 1024 bytes and control
// characters are replaced. `whose` begins them.
Error error_from_reply(std::uint32_t status, BytesView text, std::string_view whose = "engine");

}  // namespace vtpm::ipc
