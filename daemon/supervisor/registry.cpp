// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/registry.h"

#include <algorithm>
#include <array>
#include <type_traits>

namespace vtpm::supervisor {
namespace {

constexpr std::size_t kMaxName = 64;
constexpr std::size_t kMinPrefix = 4;

bool is_alphanumeric(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

}  // namespace

const Provisioned* shown(const Instance& instance) noexcept {
  const auto find = [](const auto& state) -> const Provisioned* {
    using T = std::decay_t<decltype(state)>;
    if constexpr (std::is_same_v<T, Manufacturing> || std::is_same_v<T, Destroying>)
      return nullptr;
    else
      return &state.made;
  };
  return std::visit(find, instance.state);
}

std::string_view state_name(const State& state) noexcept {
  constexpr std::array<std::string_view, std::variant_size_v<State>> kNames = {
      "starting", "running", "destroyed", "failed", "starting", "stopping", "starting", "stopped"};
  return kNames[state.index()];
}

bool is_between_states(const State& state) noexcept {
  return std::holds_alternative<Starting>(state) || std::holds_alternative<Stopping>(state) ||
         std::holds_alternative<Resetting>(state);
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
      return Error(ErrorCode::Conflict, "an instance named " + *row.name +
                                            " exists already: choose another name, or destroy that one");
  }
  if (owned >= quota)
    return Error(ErrorCode::Exhausted, "uid " + std::to_string(row.owner_uid) + " has " +
                                           std::to_string(owned) + " instances, the limit");
  std::string id = row.id;
  instances_.emplace(std::move(id), Instance{std::move(row), Manufacturing{}});
  return {};
}

void Registry::restore(InstanceRow row, State state) {
  std::string id = row.id;
  instances_.emplace(std::move(id), Instance{std::move(row), std::move(state)});
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
