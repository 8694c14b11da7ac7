// SPDX-License-Identifier: Apache-2.0
// Where the handles stand in a command (TCG TPM 2.0 Library Part 1, 18): header, handle area, authorization
// area (with TPM_ST_SESSIONS), parameters.
//
// A client may write anything. Where the bytes run out, what was found so far is kept and the rest is left
// alone: the TPM runs out of bytes at the same place, before it does anything.
#pragma once

#include "space/command_attributes.h"

#include <vtpm/os/bytes.h>
#include <vtpm/tpm/header.h>

#include <array>
#include <span>

namespace vtpm::space {

class Command {
 public:
  // A handle, and where it stands (bytes from the beginning of the command).
  struct Handle {
    std::size_t offset;
    std::uint32_t value;
  };
  struct AuthSession : Handle {
    bool continues;  // TPMA_SESSION continueSession: the session outlives the command
  };

  // `bytes` has passed tpm::check_command() and is borrowed.
  Command(BytesView bytes, CommandAttributes attributes);

  BytesView bytes() const noexcept { return bytes_; }
  tpm::CommandCode code() const noexcept { return attributes_.code(); }
  CommandAttributes attributes() const noexcept { return attributes_; }
  bool has_sessions() const noexcept { return has_sessions_; }

  std::span<const Handle> handles() const noexcept { return {handles_.data(), handle_count_}; }
  std::span<const AuthSession> sessions() const noexcept { return {sessions_.data(), session_count_}; }
  // What follows the areas; empty when they are not whole.
  BytesView parameters() const noexcept { return bytes_.subspan(parameters_); }
  std::size_t parameters_offset() const noexcept { return parameters_; }

 private:
  bool read_handles();
  bool read_sessions();

  static constexpr std::size_t kMaxHandles = 7;   // what TPMA_CC can say
  static constexpr std::size_t kMaxSessions = 3;  // Part 1, 18.4: the TPM refuses more

  BytesView bytes_;
  CommandAttributes attributes_;
  bool has_sessions_;
  std::size_t next_ = tpm::kHeaderSize;  // the first byte that was not read yet
  std::size_t parameters_;
  std::size_t handle_count_ = 0;
  std::size_t session_count_ = 0;
  std::array<Handle, kMaxHandles> handles_;
  std::array<AuthSession, kMaxSessions> sessions_;
};

}  // namespace vtpm::space
