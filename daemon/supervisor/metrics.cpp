// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/metrics.h"

#include <array>

namespace vtpm::supervisor {
namespace {

using ipc::EngineStatus;

std::string head(std::string_view name, std::string_view type, std::string_view help) {
  std::string out = "# HELP ";
  out.append(name).append(" ").append(help).append("\n# TYPE ").append(name).append(" ").append(type);
  return out + "\n";
}

// Prometheus' base unit of time.
std::string as_seconds(std::uint64_t us) {
  constexpr std::uint64_t kUsPerSecond = 1'000'000;
  const std::string fraction = std::to_string(kUsPerSecond + us % kUsPerSecond).substr(1);
  return std::to_string(us / kUsPerSecond) + "." + fraction;
}

struct InstanceFamily {
  std::string_view name;
  std::string_view type;
  std::string_view help;
  std::uint64_t EngineStatus::*value;
  bool is_time = false;
};
constexpr std::array kInstanceFamilies = {
    InstanceFamily{"vtpm_instance_commands_total", "counter", "Commands of tenants that were answered.",
                   &EngineStatus::commands},
    InstanceFamily{"vtpm_instance_busy_seconds_total", "counter", "CPU time that they cost.",
                   &EngineStatus::busy_us, true},
    InstanceFamily{"vtpm_instance_throttled_total", "counter", "Commands that waited because of a limit.",
                   &EngineStatus::throttled},
    InstanceFamily{"vtpm_instance_cancelled_total", "counter", "Commands that were cancelled while they ran.",
                   &EngineStatus::cancelled},
    InstanceFamily{"vtpm_instance_spaces", "gauge", "Open files of managed nodes.", &EngineStatus::spaces},
    InstanceFamily{"vtpm_instance_swaps_total", "counter", "Contexts that were saved to make room.",
                   &EngineStatus::swaps},
    InstanceFamily{"vtpm_instance_evictions_total", "counter", "Sessions that were taken from their owners.",
                   &EngineStatus::evictions},
    InstanceFamily{"vtpm_instance_state_bytes", "gauge", "Size of the permanent state, NV included.",
                   &EngineStatus::nv_bytes},
};

}  // namespace

std::string exposition(const Family& family) {
  return head(family.name, family.type, family.help) + std::string(family.name) + " " +
         std::to_string(family.value) + "\n";
}

std::string exposition(const std::map<std::string, EngineStatus>& instances) {
  std::string out;
  if (instances.empty()) return out;
  for (const InstanceFamily& family : kInstanceFamilies) {
    out += head(family.name, family.type, family.help);
    for (const auto& [id, status] : instances) {
      const std::uint64_t value = status.*family.value;
      out.append(family.name).append("{instance=\"").append(id).append("\"} ");
      out += (family.is_time ? as_seconds(value) : std::to_string(value)) + "\n";
    }
  }
  return out;
}

}  // namespace vtpm::supervisor
