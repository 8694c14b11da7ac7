// SPDX-License-Identifier: Apache-2.0
#include "space/command.h"

namespace vtpm::space {
namespace {

constexpr std::size_t kHandleSize = 4;
constexpr std::uint8_t kContinueSession = 1;

}  // namespace

Command::Command(BytesView bytes, CommandAttributes attributes)
    : bytes_(bytes),
      attributes_(attributes),
      has_sessions_(get_be<std::uint16_t>(bytes) == static_cast<std::uint16_t>(tpm::Tag::Sessions)),
      parameters_(bytes.size()) {
  if (read_handles() && (!has_sessions_ || read_sessions())) parameters_ = next_;
}

bool Command::read_handles() {
  for (; handle_count_ < attributes_.handles(); next_ += kHandleSize) {
    if (bytes_.size() - next_ < kHandleSize) return false;
    handles_[handle_count_++] = {next_, get_be<std::uint32_t>(bytes_, next_)};
  }
  return true;
}

// authorizationSize u32, then for each session: handle u32, nonce u16 + bytes, attributes u8, auth u16 +
// bytes.
bool Command::read_sessions() {
  if (bytes_.size() - next_ < 4) return false;
  const std::size_t size = get_be<std::uint32_t>(bytes_, next_);
  next_ += 4;
  if (size > bytes_.size() - next_) return false;
  const std::size_t end = next_ + size;
  const auto skip_sized = [&] {
    if (end - next_ < 2) return false;
    const std::size_t length = get_be<std::uint16_t>(bytes_, next_);
    if (end - next_ - 2 < length) return false;
    next_ += 2 + length;
    return true;
  };
  while (next_ < end) {
    if (session_count_ == kMaxSessions || end - next_ < kHandleSize) return false;
    AuthSession& session = sessions_[session_count_++];
    session = {{next_, get_be<std::uint32_t>(bytes_, next_)}, true};
    next_ += kHandleSize;
    if (!skip_sized() || next_ == end) return false;
    session.continues = (bytes_[next_++] & kContinueSession) != 0;
    if (!skip_sized()) return false;
  }
  return true;
}

}  // namespace vtpm::space
