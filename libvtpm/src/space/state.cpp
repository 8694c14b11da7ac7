// SPDX-License-Identifier: Apache-2.0
#include "space/state.h"

namespace vtpm::space {
namespace {

using tpm::ResponseCode;

constexpr std::uint32_t kHrTransientMin = 0x10e;
constexpr std::uint32_t kHrLoadedMin = 0x110;
constexpr std::uint32_t kActiveSessionsMax = 0x111;

}  // namespace

Result<> State::prepare() {
  if (!attributes.empty()) return {};
  VTPM_TRY(const auto listed, commands.list(kCapCommands, 0));
  // Not started, or in failure mode: it executes nothing that could name a handle.
  if (listed.code == ResponseCode::Initialize || listed.code == ResponseCode::Failure) return {};
  if (listed.code != ResponseCode::Success)
    return Error(ErrorCode::TpmFailure,
                 "TPM2_GetCapability(COMMANDS): " + std::to_string(static_cast<std::uint32_t>(listed.code)));

  VTPM_TRY(const std::uint32_t objects, commands.property(kHrTransientMin));
  VTPM_TRY(const std::uint32_t loaded, commands.property(kHrLoadedMin));
  VTPM_TRY(const std::uint32_t active, commands.property(kActiveSessionsMax));
  residency.power_on({objects, loaded, active});

  // After a Startup(STATE) those that were saved are active still.
  VTPM_TRY(const auto loaded_sessions, commands.list(kCapHandles, kHmacSessionFirst));
  VTPM_TRY(const auto saved_sessions, commands.list(kCapHandles, kPolicySessionFirst));
  for (const std::uint32_t handle : loaded_sessions.values)
    sessions.put({handle, nullptr, {}, 0, Session::Loaded{}});
  for (const std::uint32_t handle : saved_sessions.values)
    sessions.put({handle, nullptr, {}, 0, Session::Saved{}});

  attributes = AttributeTable({listed.values.begin(), listed.values.end()});
  return {};
}

void State::forget() {
  attributes = {};
  sessions.clear();
  raw.objects.clear();
  for (auto& [id, space] : spaces)
    space->objects.clear();
  residency.power_on({});
  queue = {};
}

Space* State::find(SpaceId id) {
  if (raw_opening == id) return &raw;
  const auto found = spaces.find(id);
  return found == spaces.end() ? nullptr : found->second.get();
}

void State::empty(Space& space) {
  queue.leave(space);
  // A failure here is the TPM's, and the next command will meet it too.
  while (!space.objects.empty())
    (void)residency.flush(space.objects.begin()->second);
  for (auto next = sessions.begin(); next != sessions.end();) {
    Session& session = (next++)->second;
    if (session.owner != &space) continue;
    if (session.saved_by_client() != nullptr) {
      session.owner = nullptr;
    } else {
      (void)residency.flush(session);
    }
  }
}

}  // namespace vtpm::space
