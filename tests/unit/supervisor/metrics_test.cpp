// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/metrics.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::supervisor;

TEST_CASE("metrics: a value of the daemon has its help, its type and no label") {
  CHECK(exposition(Family{"a_total", "counter", "Things.", 7}) ==
        "# HELP a_total Things.\n# TYPE a_total counter\na_total 7\n");
}

TEST_CASE("metrics: each instance is a sample of each family, whose head is there once") {
  ipc::EngineStatus status;
  status.busy_us = 12'000'345;
  status.throttled = 3;
  const std::string text = exposition({{"aa", status}, {"bb", {}}});
  const auto has = [&](const std::string& part) { return text.find(part) != std::string::npos; };
  CHECK(
      has("# TYPE vtpm_instance_throttled_total counter\nvtpm_instance_throttled_total{instance=\"aa\"} 3\n"
          "vtpm_instance_throttled_total{instance=\"bb\"} 0\n"));
  CHECK(has("vtpm_instance_busy_seconds_total{instance=\"aa\"} 12.000345\n"));
  CHECK(has("vtpm_instance_busy_seconds_total{instance=\"bb\"} 0.000000\n"));
  CHECK(exposition(std::map<std::string, ipc::EngineStatus>()).empty());
}
