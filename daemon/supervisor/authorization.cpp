// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/authorization.h"

#include <algorithm>

namespace vtpm::supervisor {

bool is_operator(const PeerCredentials& peer, const Rules& rules) noexcept {
  if (peer.uid == 0 || peer.uid == rules.self) return true;
  if (!rules.group) return false;
  return peer.gid == *rules.group ||
         std::find(peer.groups.begin(), peer.groups.end(), *rules.group) != peer.groups.end();
}

Result<> check_permission(const PeerCredentials& peer, const Rules& rules, Permission permission) {
  if (permission != Permission::Operator || is_operator(peer, rules)) return {};
  return Error(ErrorCode::PermissionDenied,
               "uid " + std::to_string(peer.uid) + " is not an operator: root, the daemon's user or group");
}

bool may_use(const PeerCredentials& peer, const Rules& rules, uid_t owner) noexcept {
  return peer.uid == owner || is_operator(peer, rules);
}

}  // namespace vtpm::supervisor
