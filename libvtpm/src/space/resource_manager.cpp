// SPDX-License-Identifier: Apache-2.0
#include <vtpm/space/resource_manager.h>

#include <set>

namespace vtpm::space {

class ResourceManager::Core {
 public:
  Core(Transmit& t, Limits l) : tpm(t), limits(l) {}
  Transmit& tpm;
  Limits limits;
  std::set<SpaceId> spaces;
  std::uint64_t last_id = 0;
};

ResourceManager::ResourceManager(Transmit& tpm, Limits limits) : core_(std::make_unique<Core>(tpm, limits)) {}
ResourceManager::~ResourceManager() = default;

Result<SpaceId> ResourceManager::open(Kind) {
  return *core_->spaces.insert(SpaceId{++core_->last_id}).first;
}

void ResourceManager::close(SpaceId space) {
  core_->spaces.erase(space);
}

Result<Outcome> ResourceManager::execute(SpaceId, tpm::Locality locality, BytesView command,
                                         Clock::time_point) {
  VTPM_TRY(const BytesView response, core_->tpm.transmit(locality, command));
  return Outcome(Bytes(response.begin(), response.end()));
}

void ResourceManager::withdraw(SpaceId) {}

void ResourceManager::power_cycled() {}

ResourceManager::Counters ResourceManager::counters() const {
  return {0, 0, core_->spaces.size()};
}

}  // namespace vtpm::space
