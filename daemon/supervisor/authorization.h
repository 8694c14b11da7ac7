// SPDX-License-Identifier: Apache-2.0
// Who may do what: pure functions of a peer's credentials.
#pragma once

#include <vtpm/os/result.h>
#include <vtpm/os/unix_socket.h>

#include <optional>

namespace vtpm::supervisor {

// What a call needs.
enum class Permission {
  Anyone,    // whoever may open the socket
  Owner,     // acts on one instance: its owner, or an operator
  Operator,  // operators alone, whether or not it acts on an instance
};

// The rules of this daemon.
struct Rules {
  uid_t self;                  // vtpmd's own uid
  std::optional<gid_t> group;  // --group
};

// uid 0, vtpmd's own uid, or a member of the group (primary or supplementary, at the time of connect).
bool is_operator(const PeerCredentials& peer, const Rules& rules) noexcept;
// Whether the peer may make a call that needs `permission`, before any instance is looked at:
// PermissionDenied.
Result<> check_permission(const PeerCredentials& peer, const Rules& rules, Permission permission);
// Whether the peer may see and act on an instance of `owner`. A refusal is answered as NotFound: others' ids
// and names are not the peer's to know.
bool may_use(const PeerCredentials& peer, const Rules& rules, uid_t owner) noexcept;

}  // namespace vtpm::supervisor
