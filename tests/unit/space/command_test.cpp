// SPDX-License-Identifier: Apache-2.0
#include "space/command.h"

#include "tests/support/tpm_wire.h"

#include <catch2/catch.hpp>

using namespace vtpm;
using namespace vtpm::test;
using space::Command;
using space::CommandAttributes;

namespace {

constexpr CommandAttributes with_handles(std::uint32_t code, std::uint32_t count) {
  return CommandAttributes(code | count << 25);
}

}  // namespace

TEST_CASE("command: handles, sessions and parameters are found") {
  const Bytes bytes = wire::command(0x151, {0x40000001, 0x03000000},
                                    {{0x02000001, 0x20, Bytes(32, 7)}, {0x40000009, 0x01}}, Bytes{1, 2, 3});
  const Command command(bytes, with_handles(0x151, 2));
  REQUIRE(command.handles().size() == 2);
  CHECK(command.handles()[0].value == 0x40000001);
  CHECK(command.handles()[1].value == 0x03000000);
  CHECK(command.handles()[1].offset == 14);
  REQUIRE(command.sessions().size() == 2);
  CHECK(command.sessions()[0].value == 0x02000001);
  CHECK_FALSE(command.sessions()[0].continues);
  CHECK(command.sessions()[1].continues);
  CHECK(Bytes(command.parameters().begin(), command.parameters().end()) == Bytes{1, 2, 3});
}

TEST_CASE("command: without sessions the parameters follow the handles") {
  const Bytes bytes = wire::command(0x173, {0x80000000}, {}, Bytes{9});
  const Command command(bytes, with_handles(0x173, 1));
  CHECK(command.sessions().empty());
  CHECK(command.parameters_offset() == 14);
}

TEST_CASE("command: cut anywhere, what is whole is found and nothing beyond the end") {
  const Bytes whole =
      wire::command(0x151, {0x80000001, 0x03000000}, {{0x02000001, 1, Bytes(4, 7)}}, Bytes{1});
  for (std::size_t size = tpm::kHeaderSize; size < whole.size() - 1; ++size) {
    const Command command(BytesView(whole).first(size), with_handles(0x151, 2));
    CHECK(command.handles().size() == std::min<std::size_t>(2, (size - tpm::kHeaderSize) / 4));
    CHECK(command.parameters().empty());
    for (const auto& session : command.sessions())
      CHECK(session.offset + 4 <= size);
  }
}

TEST_CASE("command: an authorizationSize that lies leaves the parameters unknown") {
  Bytes bytes = wire::command(0x17b, {}, {{0x02000001, 1}}, Bytes{0, 8});
  const std::uint8_t size = GENERATE(as<std::uint8_t>{}, 0, 1, 8, 10, 11, 12, 200);
  bytes[13] = size;
  const Command command(bytes, with_handles(0x17b, 0));
  // 0: no session at all; what follows is parameters, and the TPM refuses the size.
  CHECK((command.parameters().empty() || size == 0));
}

TEST_CASE("command: of more than three sessions the first three are found") {
  const Bytes bytes = wire::command(0x17b, {}, {{1}, {2}, {3}, {4}}, Bytes{0, 8});
  const Command command(bytes, with_handles(0x17b, 0));
  CHECK(command.sessions().size() == 3);
  CHECK(command.parameters().empty());
}
