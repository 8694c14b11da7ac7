// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/registry.h"

#include <algorithm>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kMinPrefix = 4;

bool is_alphanumeric(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

const Provisioned* shown(const Instance& instance) noexcept {
  if (const auto* running = std::get_if<Running>(&instance.state)) return &running->made;
  if (const auto* failed = std::get_if<Failed>(&instance.state)) return &failed->made;
  return nullptr;
}

Result<> check_name(std::string_view name) {
  const auto allowed = [](char c) { return is_alphanumeric(c) || c == '.' || c == '_' || c == '-'; };
  if (!name.empty() && name.size() <= kMaxName && is_alphanumeric(name.front()) &&
      std::all_of(name.begin(), name.end(), allowed))
    return {};
  return Error(ErrorCode::Malformed,
               "a name is 1 to 64 letters, digits, '.', '_' and '-', a letter or digit first");
}

Result<> Registry::add(InstanceRow row, std::size_t quota) {
  std::size_t owned = 0;
  for (const auto& [id, instance] : instances_) {
    if (instance.row.owner_uid != row.owner_uid) continue;
    ++owned;
    if (row.name && instance.row.name == row.name)
      return Error(ErrorCode::Conflict, "an instance named " + *row.name + " exists already");
  }
  if (owned >= quota)
    return Error(ErrorCode::Exhausted, "uid " + std::to_string(row.owner_uid) + " has " +
                                           std::to_string(owned) + " instances, the limit");
  std::string id = row.id;
  instances_.emplace(std::move(id), Instance{std::move(row), Manufacturing{}});
  return {};
}

Instance* Registry::find(const std::string& id) {
  const auto found = instances_.find(id);
  return found == instances_.end() ? nullptr : &found->second;
}

Result<std::string> Registry::resolve(const PeerCredentials& peer, const Rules& rules,
                                      std::string_view reference) const {
  std::vector<std::string> named, own, begun;
  for (const auto& [id, instance] : instances_) {
    if (shown(instance) == nullptr || !may_use(peer, rules, instance.row.owner_uid)) continue;
    if (id == reference) return id;
    if (instance.row.name == reference) {
      named.push_back(id);
      if (instance.row.owner_uid == peer.uid) own.push_back(id);
    }
    if (reference.size() >= kMinPrefix && id.starts_with(reference)) begun.push_back(id);
  }
  for (const auto* matches : {&own, &named, &begun}) {
    if (matches->size() == 1) return matches->front();
    if (matches->size() > 1)
      return Error(ErrorCode::Conflict, std::string(reference) + " may be several instances: give the id");
  }
  return Error(ErrorCode::NotFound, "no instance " + std::string(reference));
}

}  // namespace vtpm::supervisor
