// SPDX-License-Identifier: Apache-2.0
#include "space/capability_view.h"

#include "space/handles.h"
#include "space/internal_commands.h"

#include <algorithm>
#include <optional>

namespace vtpm::space {
namespace {

// TPM_PT_VAR properties (Part 2, 6.13).
constexpr std::uint32_t kHrLoaded = 0x203;
constexpr std::uint32_t kHrLoadedAvail = 0x204;
constexpr std::uint32_t kHrActive = 0x205;
constexpr std::uint32_t kHrActiveAvail = 0x206;
constexpr std::uint32_t kHrTransientAvail = 0x207;

constexpr std::uint32_t kMaxHandles = 254;  // MAX_CAP_HANDLES of libtpms
constexpr std::size_t kMoreData = tpm::kHeaderSize;
constexpr std::size_t kCount = kMoreData + 1 + 4;
constexpr std::size_t kList = kCount + 4;

struct Question {
  std::uint32_t capability, property, count;
};

std::optional<Question> question(const Command& command) noexcept {
  const BytesView parameters = command.parameters();
  if (command.has_sessions() || parameters.size() != 12) return std::nullopt;
  return Question{get_be<std::uint32_t>(parameters, 0), get_be<std::uint32_t>(parameters, 4),
                  get_be<std::uint32_t>(parameters, 8)};
}

void write_be(Bytes& out, std::size_t offset, std::uint32_t value) noexcept {
  for (std::size_t i = 0; i < 4; ++i)
    out[offset + i] = static_cast<std::uint8_t>(value >> (24 - 8 * i));
}

// The list of handles from the one asked for on. Those of sessions are in the order of their slots, whatever
// their type.
void write_handles(const std::vector<std::uint32_t>& handles, const Question& asked, Bytes& response) {
  const std::uint32_t room = std::min(asked.count, kMaxHandles);
  std::uint32_t count = 0;
  bool more = false;
  response.resize(kList);
  for (const std::uint32_t handle : handles) {
    if ((handle & kIndexMask) < (asked.property & kIndexMask)) continue;
    more = count == room;
    if (more) break;
    put_be(response, handle);
    ++count;
  }
  response[kMoreData] = more ? 1 : 0;
  write_be(response, kCount, count);
  write_be(response, 2, static_cast<std::uint32_t>(response.size()));
}

void write_properties(const CapabilityView& view, Bytes& response) {
  const auto size = [](const auto& list) { return static_cast<std::uint32_t>(list.size()); };
  for (std::size_t offset = kList; offset + 8 <= response.size(); offset += 8) {
    switch (get_be<std::uint32_t>(response, offset)) {
      case kHrLoaded:
        write_be(response, offset + 4, size(view.loaded_sessions));
        break;
      case kHrLoadedAvail:
        write_be(response, offset + 4, view.loaded_available);
        break;
      case kHrActive:
        write_be(response, offset + 4, size(view.loaded_sessions) + size(view.saved_sessions));
        break;
      case kHrActiveAvail:
        write_be(response, offset + 4, view.active_available);
        break;
      case kHrTransientAvail:
        write_be(response, offset + 4, view.objects_available);
        break;
      default:
        break;
    }
  }
}

}  // namespace

bool has_view(const Command& command) noexcept {
  const auto asked = question(command);
  if (!asked) return false;
  if (asked->capability == kCapHandles) return is_transient(asked->property) || is_session(asked->property);
  return asked->capability == kCapTpmProperties;
}

void write_view(const CapabilityView& view, const Command& command, Bytes& response) {
  const auto asked = question(command);
  if (!asked || response.size() < kList) return;
  if (asked->capability == kCapTpmProperties) return write_properties(view, response);
  if (is_transient(asked->property)) return write_handles(view.objects, *asked, response);
  // Part 2, 7.2: with TPM_CAP_HANDLES the two session types say "loaded" and "saved".
  const bool loaded = type_of(asked->property) == kHmacSessionFirst;
  write_handles(loaded ? view.loaded_sessions : view.saved_sessions, *asked, response);
}

}  // namespace vtpm::space
