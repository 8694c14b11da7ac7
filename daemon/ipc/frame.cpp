// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/frame.h"

#include "daemon/ipc/held.h"
#include "daemon/ipc/u64_list.h"

#include <vtpm/tpm/constants.h>

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace vtpm::ipc {
namespace {

constexpr std::uint16_t kFlagReply = 1;
constexpr std::uint16_t kFlagMore = 2;
constexpr std::size_t kMaxErrorText = 1024;
constexpr std::size_t kCommand = tpm::kBufferMax;

// verb, name, receiver, when, request fds, reply fds, request bytes, reply bytes
constexpr std::array kVerbs = {
    VerbRow{Verb::PowerOn, "power-on", Receiver::Engine, kWhenNever | kWhenStopped, 0, 0, kMaxTransfer, 0},
    VerbRow{Verb::Transmit, "transmit", Receiver::Engine, kWhenOn, 0, 0, 1 + kMaxPayload / 2, kCommand},
    VerbRow{Verb::HashSequence, "hash-sequence", Receiver::Engine, kWhenOn, 0, 0, kMaxPayload, 0},
    VerbRow{Verb::Serve, "serve", Receiver::Engine, kWhenOn, 1, 0, 2, 0},
    VerbRow{Verb::PermanentState, "permanent-state", Receiver::Engine, kWhenOn | kWhenStopped, 0, 0, 0,
            kMaxTransfer},
    VerbRow{Verb::Shutdown, "shutdown", Receiver::Engine, kWhenOn, 0, 0, 0, 0},
    VerbRow{Verb::PowerOnDurable, "power-on-durable", Receiver::Engine, kWhenNever, 2, 0, 8 + 32 + 8, 8},
    VerbRow{Verb::Status, "status", Receiver::Engine, kWhenNever | kWhenOn | kWhenStopped, 0, 0, 0,
            kMaxU64List},
    VerbRow{Verb::Limits, "limits", Receiver::Engine, kWhenNever | kWhenOn, 0, 0, kMaxU64List, 0},
    VerbRow{Verb::Spawn, "spawn", Receiver::Zygote, 0, 1, 1, 0, 4},
    VerbRow{Verb::Ready, "ready", Receiver::Supervisor, 0, 0, 0, 4, 0},
    VerbRow{Verb::Exited, "exited", Receiver::Supervisor, 0, 0, 0, 8, 0},
    VerbRow{Verb::Hold, "hold", Receiver::Keeper, 0, 1, 0, HeldKey::kSize, 0},
    VerbRow{Verb::Drop, "drop", Receiver::Keeper, 0, 0, 0, HeldKey::kSize, 0},
    VerbRow{Verb::Release, "release", Receiver::Keeper, 0, 0, 0, 8, 0},
    VerbRow{Verb::Recall, "recall", Receiver::Keeper, 0, 0, 1, HeldKey::kSize, HeldKey::kSize},
    VerbRow{Verb::Quit, "quit", Receiver::Keeper, 0, 0, 0, 0, 0},
};

Error malformed(std::string_view what) {
  return {ErrorCode::Malformed, "engine frame: " + std::string(what)};
}

// Whether a part continues the transfer that `first` began.
bool continues(const FrameHead& first, const FrameHead& part) {
  return part.verb == first.verb && part.reply == first.reply && part.id == first.id &&
         part.status == first.status;
}

Result<> check_against_table(const Transfer& transfer) {
  const VerbRow& row = *find_verb(static_cast<std::uint16_t>(transfer.head.verb));
  const bool failed = transfer.head.status != 0;
  const auto size = failed ? kMaxErrorText : transfer.head.reply ? row.reply_size : row.request_size;
  const auto fds = failed ? 0 : transfer.head.reply ? row.reply_fds : row.request_fds;
  if (transfer.payload.size() > size) return malformed("payload too long for its verb");
  if (transfer.fds.size() != fds) return malformed("wrong number of descriptors for its verb");
  return {};
}

}  // namespace

const VerbRow* find_verb(std::uint16_t verb) noexcept {
  const auto row = std::find_if(kVerbs.begin(), kVerbs.end(), [verb](const VerbRow& r) {
    return static_cast<std::uint16_t>(r.verb) == verb;
  });
  return row == kVerbs.end() ? nullptr : &*row;
}

Bytes encode(const FrameHead& head, BytesView payload) {
  if (payload.size() > kMaxPayload) std::abort();
  Bytes out;
  out.reserve(kFrameHeaderSize + payload.size());
  put_be<std::uint32_t>(out, kFrameMagic);
  put_be<std::uint16_t>(out, static_cast<std::uint16_t>(head.verb));
  put_be<std::uint16_t>(
      out, static_cast<std::uint16_t>((head.reply ? kFlagReply : 0) | (head.more ? kFlagMore : 0)));
  put_be<std::uint32_t>(out, head.id);
  put_be<std::uint32_t>(out, head.status);
  put_be<std::uint32_t>(out, static_cast<std::uint32_t>(payload.size()));
  put(out, payload);
  return out;
}

Result<Frame> decode(BytesView bytes) {
  if (bytes.size() < kFrameHeaderSize) return malformed("shorter than its header");
  if (get_be<std::uint32_t>(bytes) != kFrameMagic) return malformed("wrong magic");
  const VerbRow* row = find_verb(get_be<std::uint16_t>(bytes, 4));
  if (row == nullptr) return malformed("unknown verb");
  const auto flags = get_be<std::uint16_t>(bytes, 6);
  if ((flags & ~(kFlagReply | kFlagMore)) != 0) return malformed("unknown flag");
  const FrameHead head{row->verb, (flags & kFlagReply) != 0, (flags & kFlagMore) != 0,
                       get_be<std::uint32_t>(bytes, 8), get_be<std::uint32_t>(bytes, 12)};
  const auto length = get_be<std::uint32_t>(bytes, 16);
  if (length > kMaxPayload || length != bytes.size() - kFrameHeaderSize)
    return malformed("a length that disagrees");
  if (head.status != 0 && (!head.reply || head.more)) return malformed("a status where none may be");
  if (head.reply && row->receiver == Receiver::Supervisor) return malformed("a reply to an event");
  return Frame{head, bytes.subspan(kFrameHeaderSize)};
}

Result<> send_transfer(int socket, FrameHead head, BytesView payload, std::span<const int> fds,
                       Deadline deadline) {
  if (payload.size() > kMaxTransfer)
    return Error(ErrorCode::Exhausted, "over the size of a transfer between vtpmd and an engine (1 MiB)");
  do {
    const auto part = payload.first(std::min(payload.size(), kMaxPayload));
    payload = payload.subspan(part.size());
    head.more = !payload.empty();
    Bytes frame = encode(head, part);
    const auto sent = send_message(socket, frame, fds, deadline);
    OPENSSL_cleanse(frame.data(), frame.size());  // it may carry a state key
    if (!sent) return sent.error();
    fds = {};
  } while (head.more);
  return {};
}

Result<Transfer> receive_transfer(int socket, Deadline deadline) {
  std::optional<Transfer> transfer;
  for (;;) {
    VTPM_TRY(Message message, receive_message(socket, kFrameHeaderSize + kMaxPayload, deadline));
    if (message.refused) return malformed("too long, or too many descriptors");
    VTPM_TRY(const Frame frame, decode(message.bytes));
    if (!transfer) {
      transfer = Transfer{frame.head, {}, std::move(message.fds)};
    } else if (!continues(transfer->head, frame.head) || !message.fds.empty()) {
      return malformed("a part of something else");
    }
    put(transfer->payload, frame.payload);
    OPENSSL_cleanse(message.bytes.data(), message.bytes.size());  // `frame` is a view into it
    if (transfer->payload.size() > kMaxTransfer) return malformed("a transfer without end");
    if (frame.head.more && frame.payload.size() != kMaxPayload) return malformed("a short part");
    if (!frame.head.more) break;
  }
  transfer->head.more = false;
  VTPM_TRY_VOID(check_against_table(*transfer));
  return std::move(*transfer);
}

Error error_from_reply(std::uint32_t status, BytesView text, std::string_view whose) {
  if (status == 0 || status > static_cast<std::uint32_t>(ErrorCode::Internal))
    return malformed("an unknown status");
  std::string clean(as_text(text.first(std::min(text.size(), kMaxErrorText))));
  std::replace_if(
      clean.begin(), clean.end(), [](unsigned char c) { return c < 0x20 || c > 0x7e; }, '?');
  return {static_cast<ErrorCode>(status), std::string(whose) + ": " + clean};
}

}  // namespace vtpm::ipc
