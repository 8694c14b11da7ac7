// SPDX-License-Identifier: Apache-2.0
// One command of one space, from its client's bytes to its client's answer:
//
//   admit     is the space at a limit, or must it wait for a session?
//   bring in  what the command names and is out
//   translate virtual handles to real ones; what is not the space's own to something that is not there
//   transmit; where the TPM has no room, make some, and again from "bring in"
//   account   for what the command has made, flushed or saved
//
// To run a command again is safe. libtpms answers OBJECT_MEMORY, SESSION_MEMORY, SESSION_HANDLES and
// CONTEXT_GAP before it changes anything: slots are looked for first (Load, CreatePrimary, ...: "Don't get
// invested in loading if there is no place to put it"), session nonces advance only on success
// (BuildResponseSession), and no command that makes an object or a session is authorized by a PIN index,
// whose count an authorization changes. But it decrypts an encrypted parameter in the command's own buffer:
// each attempt needs a fresh copy.
#pragma once

#include "space/capability_view.h"
#include "space/state.h"

namespace vtpm::space {

class Execution {
 public:
  Execution(State& state, Space& space, Command command, tpm::Locality locality,
            Clock::time_point now) noexcept
      : state_(state), space_(space), command_(command), locality_(locality), now_(now) {}

  Result<Outcome> run();

 private:
  // What a successful response brings that the TPM has limited room for.
  enum class Makes { Nothing, Object, Session };
  Makes makes() const noexcept;

  // In the functions that return an optional Outcome: the client's answer, if it is known already.
  Result<std::optional<Outcome>> admit();
  // One more active session than the TPM has.
  Result<std::optional<Outcome>> admit_session();
  Outcome answer(tpm::ResponseCode code);

  void name_all();
  Result<tpm::ResponseCode> bring_in();
  // The TPM has answered that it lacks this; no answer yet: try again.
  Result<std::optional<Outcome>> make_room(tpm::ResponseCode lacking);

  // Writes State::outgoing.
  Result<std::optional<Outcome>> translate();
  Result<std::uint32_t> translated(std::uint32_t handle);
  Result<std::optional<Outcome>> translate_flush();
  void exchange_stale_context();

  Result<Outcome> account(const Reply& reply);
  void account_for_ended();
  void account_for_flushed();
  void account_for_made(Bytes& response);
  void account_for_saved(BytesView context);
  Result<> account_for_extensive();
  CapabilityView view() const;
  std::size_t object_limit() const noexcept;
  std::size_t session_limit() const noexcept;

  State& state_;
  Space& space_;
  Command command_;
  tpm::Locality locality_;
  Clock::time_point now_;
  unsigned attempts_ = 0;
};

}  // namespace vtpm::space
