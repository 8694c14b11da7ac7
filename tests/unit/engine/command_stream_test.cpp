// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/command_stream.h"

#include <catch2/catch.hpp>

#include <random>

using namespace vtpm;
using vtpm::engine::CommandStream;
using Next = CommandStream::Next;

namespace {

Bytes command(std::size_t size, std::uint8_t filler) {
  Bytes bytes;
  put_be<std::uint16_t>(bytes, 0x8001);
  put_be(bytes, static_cast<std::uint32_t>(size));
  bytes.resize(std::max<std::size_t>(size, 6), filler);
  return bytes;
}

// As much of the bytes as there is room for.
std::size_t feed(CommandStream& stream, BytesView bytes) {
  const auto room = stream.room();
  const auto part = bytes.first(std::min(room.size(), bytes.size()));
  std::ranges::copy(part, room.begin());
  stream.add(part.size());
  return part.size();
}

}  // namespace

TEST_CASE("command stream: commands come out as they went in, however they were cut") {
  std::mt19937 random(GENERATE(range(0U, 20U)));
  std::vector<Bytes> commands;
  Bytes all;
  for (std::uint8_t i = 0; i < 100; ++i) {
    commands.push_back(command(10 + random() % (i % 3 == 0 ? 4087 : 60), i));
    put(all, commands.back());
  }
  CommandStream stream;
  std::size_t fed = 0;
  for (const Bytes& expected : commands) {
    while (stream.next() == Next::Partial) {
      REQUIRE_FALSE(stream.room().empty());
      const std::size_t most = 1 + random() % (random() % 2 == 0 ? 20 : 5000);
      const auto rest = BytesView(all).subspan(fed);
      fed += feed(stream, rest.first(std::min(most, rest.size())));
    }
    REQUIRE(stream.next() == Next::Whole);
    REQUIRE(stream.take() == expected);
  }
  CHECK(stream.next() == Next::Partial);
}

TEST_CASE("command stream: a command of the largest size fills the buffer") {
  CommandStream stream;
  const Bytes largest = command(4096, 1);
  CHECK(feed(stream, largest) == 4096);
  CHECK(stream.room().empty());
  REQUIRE(stream.next() == Next::Whole);
  CHECK(stream.take() == largest);
  CHECK(stream.room().size() == 4096);
}

TEST_CASE("command stream: it is known at the sixth byte that no command has that size") {
  const std::size_t size = GENERATE(0U, 1U, 9U, 4097U, 0xffffffffU);
  CommandStream stream;
  const Bytes lie = command(size > 4097 ? 4097 : size, 0);
  Bytes head(lie.begin(), lie.begin() + 6);
  if (size > 4097) std::fill(head.begin() + 2, head.end(), std::uint8_t{0xff});
  feed(stream, BytesView(head).first(5));
  CHECK(stream.next() == Next::Partial);
  feed(stream, BytesView(head).subspan(5));
  CHECK(stream.next() == Next::Broken);
}
