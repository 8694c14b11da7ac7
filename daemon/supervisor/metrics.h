// SPDX-License-Identifier: Apache-2.0
// The text of GET /metrics: Prometheus' exposition format 0.0.4.
#pragma once

#include "daemon/ipc/engine_status.h"

#include <map>
#include <string>
#include <string_view>

namespace vtpm::supervisor {

// One value of the whole daemon.
struct Family {
  std::string_view name;
  std::string_view type;  // "counter", "gauge"
  std::string_view help;
  std::uint64_t value;
};
std::string exposition(const Family& family);

// What each instance uses, by its id: one label. Counters begin anew with an instance's next engine.
std::string exposition(const std::map<std::string, ipc::EngineStatus>& instances);

}  // namespace vtpm::supervisor
