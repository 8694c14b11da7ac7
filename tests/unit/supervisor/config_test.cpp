// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/options.h"
#include "tests/support/catch_result.h"

using namespace vtpm;
using namespace vtpm::supervisor;

TEST_CASE("config: every member sets its option") {
  Options options;
  REQUIRE(
      apply_config(R"({"state_dir":"/s","runtime_dir":"/r","anchor":"embedded","engine":"/e","group":"ops",
    "max_instances_per_user":3,"epoch_max_age_seconds":7,"anchor_pcrs":[0,7,23],"seal_pcrs":[7]})",
                   options));
  CHECK(options.state_dir == "/s");
  CHECK(options.runtime_dir == "/r");
  CHECK(options.anchor == "embedded");
  CHECK(options.engine == "/e");
  CHECK(options.group == "ops");
  CHECK(options.max_instances_per_user == 3);
  CHECK(options.epoch_max_age == std::chrono::seconds(7));
  CHECK(options.anchor_pcrs == std::set<unsigned>{0, 7, 23});
  CHECK(options.seal_pcrs == std::set<unsigned>{7});
}

TEST_CASE("config: what is absent keeps its value") {
  Options options;
  options.anchor = "embedded";
  REQUIRE(apply_config("{}", options));
  CHECK(options.anchor == "embedded");
  CHECK(options.anchor_pcrs.size() == 8);
}

TEST_CASE("config: unknown members, wrong types and values out of range are refused") {
  const auto text =
      GENERATE(as<std::string>(), "", "[]", "{", R"({"sate_dir":"/s"})", R"({"group":7})",
               R"({"anchor_pcrs":[24]})", R"({"anchor_pcrs":[]})", R"({"anchor_pcrs":"0"})",
               R"({"seal_pcrs":[24]})", R"({"epoch_max_age_seconds":-1})", R"({"anchor":"a","anchor":"b"})");
  Options options;
  const auto applied = apply_config(text, options);
  REQUIRE_FALSE(applied);
  CHECK(applied.error().kind() == ErrorCode::Malformed);
}
