// SPDX-License-Identifier: Apache-2.0
#include "space/execution.h"
#include "space/state.h"

#include <vtpm/space/resource_manager.h>

#include <algorithm>

namespace vtpm::space {

class ResourceManager::Core : public State {
 public:
  using State::State;
  std::uint64_t last_id = 0;
};

ResourceManager::ResourceManager(Transmit& tpm, Limits limits) : core_(std::make_unique<Core>(tpm, limits)) {}
ResourceManager::~ResourceManager() = default;

void ResourceManager::set_limits(const Limits& limits) {
  core_->limits = limits;
}

Result<SpaceId> ResourceManager::open(Kind kind) {
  const SpaceId id{core_->last_id + 1};
  if (kind == Kind::Raw) {
    if (core_->raw_opening) return Error(ErrorCode::Busy, "the raw TPM has an opener already");
    core_->raw_opening = id;
  } else {
    if (kind == Kind::Managed && !has_room())
      return Error(ErrorCode::Exhausted,
                   "all " + std::to_string(core_->limits.spaces) + " spaces of this TPM are open");
    core_->spaces.emplace(id, std::make_unique<Space>(Space{kind, {}}));
  }
  ++core_->last_id;
  return id;
}

bool ResourceManager::has_room() const {
  const auto managed = std::ranges::count_if(
      core_->spaces, [](const auto& entry) { return entry.second->kind == Kind::Managed; });
  return static_cast<std::size_t>(managed) < core_->limits.spaces;
}

void ResourceManager::close(SpaceId id) {
  Space* space = core_->find(id);
  if (space == nullptr) return;
  if (space->kind == Kind::Raw) {
    core_->queue.leave(*space);
    core_->raw_opening.reset();
    return;
  }
  core_->empty(*space);
  core_->spaces.erase(id);
}

Result<Outcome> ResourceManager::execute(SpaceId id, tpm::Locality locality, BytesView command,
                                         Clock::time_point now) {
  Space* space = core_->find(id);
  if (space == nullptr) return Error(ErrorCode::NotFound, "no such space");
  VTPM_TRY_VOID(core_->prepare());
  const tpm::CommandCode code{get_be<std::uint32_t>(command, 6)};
  const CommandAttributes* attributes = core_->attributes.find(code);
  // A command that the TPM does not have, or any while it is not started, names nothing.
  Execution execution(*core_, *space,
                      Command(command, attributes != nullptr ? *attributes : CommandAttributes(0)), locality,
                      now);
  return execution.run();
}

void ResourceManager::withdraw(SpaceId id) {
  if (const Space* space = core_->find(id)) core_->queue.leave(*space);
}

void ResourceManager::power_cycled() {
  core_->forget();
}

ResourceManager::Counters ResourceManager::counters() const {
  return {core_->residency.swaps(), core_->residency.evictions(),
          core_->spaces.size() + (core_->raw_opening ? 1 : 0)};
}

}  // namespace vtpm::space
