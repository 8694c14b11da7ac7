// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/host_key.h"

#include "daemon/anchor/state_key.h"

namespace vtpm::supervisor {
namespace {

Result<Secret> read_key(anchor::Anchor& anchor, const std::string& state_dir, bool in_use) {
  if (!in_use) return anchor.state_key();
  VTPM_TRY(std::optional<Secret> key, anchor.existing_state_key());
  if (key) return std::move(*key);
  const bool embedded = anchor.identity().kind == log::AnchorKind::Embedded;
  return Error(ErrorCode::Corrupt,
               state_dir + (embedded ? "/state.key" : "/state-key.json") +
                   " is missing, although durable instances need it; nothing was changed. "
                   "Restore it from a backup, or destroy the instances");
}

}  // namespace

Task<HostKey::Shared> HostKey::get(bool in_use) {
  if (key_) co_return key_;
  const auto read = [this, in_use] { return read_key(anchor_, state_dir_, in_use); };
  VTPM_CO_TRY(Secret key, co_await run_on(workers_.anchor, read));
  if (!key_) key_ = std::make_shared<const Secret>(std::move(key));
  co_return key_;
}

}  // namespace vtpm::supervisor
