// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/anchor.h"

#include "daemon/anchor/connection.h"

namespace vtpm::anchor {

Result<std::unique_ptr<Anchor>> open_anchor(const AnchorConfig& config, SpawnEngine spawn) {
  if (config.embedded != config.tcti.empty())
    return Error(ErrorCode::Configuration, "an anchor is either embedded or reached through a TCTI");
  return open_over(config.embedded ? embedded_connection(config.state_dir, std::move(spawn))
                                   : tcti_connection(config.tcti),
                   config);
}

}  // namespace vtpm::anchor
