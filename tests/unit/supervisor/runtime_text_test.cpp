// SPDX-License-Identifier: Apache-2.0
#include "daemon/supervisor/runtime_text.h"

#include "tests/support/catch_result.h"

#include <vtpm/tpm/constants.h>

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::supervisor;

namespace {

tpm::Sha256 digest(std::uint8_t value) {
  tpm::Sha256 out{};
  out.fill(value);
  return out;
}

Provisioned made(std::size_t statements) {
  Provisioned out{
      {Bytes{1, 2}, Bytes(34, 3), Bytes(34, 4), Bytes{5, 6}, Bytes(34, 7)}, digest(8), 9, 4711, {}};
  out.event_log.append(tpm::kLaunchPcr, digest(8), log::kLaunchContent, "{\"a\":\"\\u0001\"}");
  for (std::size_t i = 0; i < statements; ++i)
    out.event_log.append(tpm::kOperatorPcr, digest(10), log::kStatementContent, "said");
  return out;
}

}  // namespace

TEST_CASE("runtime text: what was written is read") {
  std::vector<Node> nodes;
  nodes.push_back({control::NodeKind::Managed, "container:/dev/vtpm"});
  nodes.push_back({control::NodeKind::Raw, "/tmp/\"x\""});
  nodes.push_back({control::NodeKind::Raw, "/run/tpm.sock", control::Backend::Socket});
  const std::string text = runtime_text(made(2), nodes);
  const auto read = parse_runtime(text, 9);
  REQUIRE(read);
  CHECK(runtime_text(read->made, read->nodes) == text);
  CHECK(read->made.engine_pid == 4711);
  CHECK(read->made.log_index == 9);
  CHECK(read->made.identity.ak_name == Bytes(34, 7));
  CHECK(read->made.event_log.events().size() == 3);
  REQUIRE(read->nodes.size() == 3);
  CHECK(read->nodes[1].backend == control::Backend::Fuse);
  CHECK(read->nodes[2].backend == control::Backend::Socket);
  CHECK(read->nodes[1].path == "/tmp/\"x\"");
}

TEST_CASE("runtime text: what the engine was told of limits is in it, all of them or none") {
  Provisioned told = made(0);
  CHECK_FALSE(parse_runtime(runtime_text(told, {}), 9)->made.limits);
  told.limits = ipc::EngineLimits{1, 2, 3, 4, 5, 6, 7, 8};
  const std::string text = runtime_text(told, {});
  CHECK(parse_runtime(text, 9)->made.limits == told.limits);
  for (const auto& [from, to] : {std::pair("\"spaces\"", "\"others\""), std::pair(",\"spaces\":1", "")}) {
    std::string other = text;
    const auto at = other.find(from);
    REQUIRE(at != std::string::npos);
    other.replace(at, std::string_view(from).size(), to);
    CHECK_FALSE(parse_runtime(other, 9));
  }
}

TEST_CASE("runtime text: whether the engine is in its container's cgroup is in it") {
  Provisioned placed = made(0);
  CHECK_FALSE(parse_runtime(runtime_text(placed, {}), 9)->made.placed);
  placed.placed = true;
  std::string text = runtime_text(placed, {});
  CHECK(parse_runtime(text, 9)->made.placed);
  text.replace(text.find("\"container\""), 11, "\"elsewhere\"");
  CHECK_FALSE(parse_runtime(text, 9));
}

TEST_CASE("runtime text: a node of which no backend is said is a device file") {
  std::vector<Node> nodes;
  nodes.push_back({control::NodeKind::Raw, "/x", control::Backend::Socket});
  std::string text = runtime_text(made(0), nodes);
  const std::string_view member = "\"backend\":\"socket\",";
  const auto at = text.find(member);
  REQUIRE(at != std::string::npos);
  const auto read = parse_runtime(text.erase(at, member.size()), 0);
  REQUIRE(read);
  CHECK(read->nodes[0].backend == control::Backend::Fuse);
}

TEST_CASE("runtime text: another text is refused") {
  std::vector<Node> nodes;
  nodes.push_back({control::NodeKind::Raw, "/x"});
  const std::string good = runtime_text(made(1), nodes);
  CHECK_FALSE(parse_runtime("", 0));
  CHECK_FALSE(parse_runtime("{}", 0));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  CHECK(parse_runtime(good, 0));
  CHECK_FALSE(parse_runtime(changed("vtpm-runtime/1", "vtpm-runtime/2"), 0));
  CHECK_FALSE(parse_runtime(changed("\"raw\"", "\"both\""), 0));
  CHECK_FALSE(parse_runtime(changed("\"fuse\"", "\"other\""), 0));
  CHECK_FALSE(parse_runtime(changed("4711", "-1"), 0));
  CHECK_FALSE(parse_runtime(changed("\"pid\"", "\"other\""), 0));
  CHECK_FALSE(parse_runtime(changed("recnum", "number"), 0));
}

TEST_CASE("runtime text: a record that was written before its PCR was extended is dropped, others never") {
  const log::EventLog recorded = made(2).event_log;
  CHECK(borne_out(recorded, recorded.replay())->events().size() == 3);
  CHECK(borne_out(recorded, made(1).event_log.replay())->events().size() == 2);
  CHECK_FALSE(borne_out(recorded, made(3).event_log.replay()));
  tpm::PcrValues none = made(0).event_log.replay();
  none[tpm::kOperatorPcr] = tpm::Sha256{};
  CHECK_FALSE(borne_out(recorded, none));
  CHECK(borne_out(made(1).event_log, none)->events().size() == 1);
  CHECK(borne_out(made(0).event_log, none)->events().size() == 1);
  tpm::PcrValues other_launch = recorded.replay();
  other_launch[tpm::kLaunchPcr] = digest(1);
  CHECK_FALSE(borne_out(recorded, other_launch));
  CHECK_FALSE(borne_out(recorded, {}));
  tpm::PcrValues only_launch = none;
  only_launch[tpm::kLaunchPcr] = digest(1);
  CHECK_FALSE(borne_out(made(0).event_log, only_launch));
}
