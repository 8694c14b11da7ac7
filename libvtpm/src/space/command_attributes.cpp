// SPDX-License-Identifier: Apache-2.0
#include "space/command_attributes.h"

#include <algorithm>

namespace vtpm::space {
namespace {

// gcc 12 warns wrongly of a pointer to the member function as the projection.
constexpr auto kByCode = [](const CommandAttributes& command) { return command.code(); };

}  // namespace

AttributeTable::AttributeTable(std::vector<CommandAttributes> commands) : commands_(std::move(commands)) {
  std::ranges::sort(commands_, {}, kByCode);
}

const CommandAttributes* AttributeTable::find(tpm::CommandCode code) const noexcept {
  const auto found = std::ranges::lower_bound(commands_, code, {}, kByCode);
  return found != commands_.end() && found->code() == code ? &*found : nullptr;
}

}  // namespace vtpm::space
