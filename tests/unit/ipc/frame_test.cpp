// SPDX-License-Identifier: Apache-2.0
#include "daemon/ipc/frame.h"

#include "daemon/ipc/held.h"
#include "tests/support/catch_result.h"

#include <catch2/catch.hpp>
#include <fcntl.h>

#include <set>
#include <thread>

using namespace vtpm;
using namespace vtpm::ipc;

namespace {

Bytes valid_frame() {
  const Bytes payload{1, 2, 3};
  return encode({Verb::Transmit, false, false, 7, 0}, payload);
}

Bytes changed(std::size_t offset, std::uint8_t value) {
  Bytes frame = valid_frame();
  frame[offset] = value;
  return frame;
}

bool is_malformed(BytesView bytes) {
  const auto frame = decode(bytes);
  return !frame && frame.error().kind() == ErrorCode::Malformed;
}

struct Ends {
  SocketPair pair = std::move(*make_seqpacket_pair());
  int sender() const { return pair.first.get(); }
  int receiver() const { return pair.second.get(); }
};

Deadline soon() {
  return after(std::chrono::seconds(5));
}

bool receives_malformed(const Ends& ends) {
  const auto transfer = receive_transfer(ends.receiver(), soon());
  return !transfer && transfer.error().kind() == ErrorCode::Malformed;
}

}  // namespace

TEST_CASE("frame: what was encoded is decoded") {
  const Bytes frame = valid_frame();
  const auto decoded = decode(frame);
  REQUIRE(decoded);
  CHECK(decoded->head.verb == Verb::Transmit);
  CHECK_FALSE(decoded->head.reply);
  CHECK_FALSE(decoded->head.more);
  CHECK(decoded->head.id == 7);
  CHECK(decoded->head.status == 0);
  CHECK(Bytes(decoded->payload.begin(), decoded->payload.end()) == Bytes{1, 2, 3});
}

TEST_CASE("frame: the bytes are those that FORMATS.md shows") {
  const Bytes expected{'V', 'T', 'P', 'M', 0, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3};
  CHECK(valid_frame() == expected);
}

TEST_CASE("frame: every prefix of a frame is refused") {
  const Bytes frame = valid_frame();
  for (std::size_t size = 0; size < frame.size(); ++size)
    CHECK(is_malformed(BytesView(frame).first(size)));
}

TEST_CASE("frame: a trailing byte is refused") {
  Bytes frame = valid_frame();
  frame.push_back(0);
  CHECK(is_malformed(frame));
}

TEST_CASE("frame: a wrong magic, an unknown verb, an unknown flag are refused") {
  CHECK(is_malformed(changed(0, 'v')));
  CHECK(is_malformed(changed(5, 99)));
  CHECK(is_malformed(changed(4, 1)));
  CHECK(is_malformed(changed(7, 4)));
  CHECK(is_malformed(changed(6, 0x80)));
}

TEST_CASE("frame: a status in a request is refused") {
  CHECK(is_malformed(changed(15, 1)));
}

TEST_CASE("frame: a reply to an event is refused") {
  CHECK(is_malformed(encode({Verb::Exited, true, false, 1, 0}, {})));
}

TEST_CASE("frame: a length of 2^32-1 is refused") {
  Bytes frame = valid_frame();
  for (std::size_t i = 16; i < 20; ++i)
    frame[i] = 0xff;
  CHECK(is_malformed(frame));
}

TEST_CASE("verbs: each is listed once") {
  std::set<std::string_view> names;
  std::set<std::uint16_t> numbers;
  for (unsigned verb = 0; verb < 0x10000; ++verb) {
    const auto* row = find_verb(static_cast<std::uint16_t>(verb));
    if (row == nullptr) continue;
    CHECK(names.insert(row->name).second);
    CHECK(numbers.insert(static_cast<std::uint16_t>(row->verb)).second);
    CHECK((row->receiver == Receiver::Engine) == (row->when != 0));
  }
  CHECK(names.contains("power-on"));
  CHECK(names.contains("exited"));
}

TEST_CASE("transfer: a payload longer than a frame arrives whole") {
  const Ends ends;
  Bytes payload(150000);
  for (std::size_t i = 0; i < payload.size(); ++i)
    payload[i] = static_cast<std::uint8_t>(i * 7);
  // Two full frames are more than a socket's buffer may hold.
  std::thread sender([&] {
    (void)send_transfer(ends.sender(), {Verb::PowerOn, false, false, 3, 0}, payload, {}, soon());
  });
  const auto transfer = receive_transfer(ends.receiver(), soon());
  sender.join();
  REQUIRE(transfer);
  CHECK(transfer->payload == payload);
  CHECK_FALSE(transfer->head.more);
}

TEST_CASE("transfer: a part with another id is refused") {
  const Ends ends;
  const Bytes part(kMaxPayload);
  REQUIRE(send_message(ends.sender(), encode({Verb::PowerOn, false, true, 3, 0}, part)));
  REQUIRE(send_message(ends.sender(), encode({Verb::PowerOn, false, false, 4, 0}, {})));
  CHECK(receives_malformed(ends));
}

TEST_CASE("transfer: parts that are not full are refused, so that it ends") {
  const Ends ends;
  REQUIRE(send_message(ends.sender(), encode({Verb::PowerOn, false, true, 3, 0}, {})));
  CHECK(receives_malformed(ends));
}

TEST_CASE("transfer: a payload over its verb's size is refused") {
  const Ends ends;
  REQUIRE(send_transfer(ends.sender(), {Verb::Transmit, true, false, 1, 0}, Bytes(4097), {}, soon()));
  CHECK(receives_malformed(ends));
}

TEST_CASE("transfer: a descriptor that the verb does not have is refused, and closed") {
  const Ends ends;
  int pipe_ends[2];
  REQUIRE(::pipe2(pipe_ends, O_CLOEXEC) == 0);
  const UniqueFd reader(pipe_ends[0]);
  UniqueFd writer(pipe_ends[1]);
  const int fd = writer.get();
  REQUIRE(send_transfer(ends.sender(), {Verb::Shutdown, false, false, 1, 0}, {}, {&fd, 1}, soon()));
  writer.reset();
  CHECK(receives_malformed(ends));
  char byte;
  CHECK(::read(reader.get(), &byte, 1) == 0);
}

TEST_CASE("transfer: a missing descriptor is refused") {
  const Ends ends;
  REQUIRE(send_transfer(ends.sender(), {Verb::Spawn, false, false, 1, 0}, {}, {}, soon()));
  CHECK(receives_malformed(ends));
}

TEST_CASE("transfer: more than 1 MiB is not sent") {
  const Ends ends;
  const auto sent = send_transfer(ends.sender(), {Verb::PowerOn}, Bytes(kMaxTransfer + 1), {}, soon());
  REQUIRE_FALSE(sent);
  CHECK(sent.error().kind() == ErrorCode::Exhausted);
}

TEST_CASE("error reply: the code is kept and the text made printable") {
  const auto error =
      error_from_reply(static_cast<std::uint32_t>(ErrorCode::Corrupt), as_bytes("a\nb\x1b[1m"));
  CHECK(error.kind() == ErrorCode::Corrupt);
  CHECK(error.context == "engine: a?b?[1m");
  CHECK(error_from_reply(999, {}).kind() == ErrorCode::Malformed);
}

TEST_CASE("frame: what is asked of an engine that serves tenants is one frame, and so is its reply") {
  // A vtpmd may die between two frames; an engine must not wait for the second.
  for (std::uint16_t number = 0; number < 64; ++number) {
    const VerbRow* row = find_verb(number);
    if (row == nullptr || row->receiver != Receiver::Engine) continue;
    INFO(row->name);
    CHECK((row->request_size <= kMaxPayload || row->verb == Verb::PowerOn));
    CHECK((row->reply_size <= kMaxPayload || row->verb == Verb::PermanentState));
  }
}

TEST_CASE("frame: the keeper's verbs carry what the table says") {
  const Ends ends;
  const int fd = ends.sender();
  const HeldKey key{0x0102030405060708, HeldKind::Node, 9};
  const auto name = encode(key);
  CHECK(name == Bytes{1, 2, 3, 4, 5, 6, 7, 8, 3, 9});
  CHECK(*decode_held(name) == key);
  for (const Verb verb : {Verb::Hold, Verb::Drop, Verb::Recall}) {
    const bool with = verb == Verb::Hold;
    const auto fds = std::span<const int>(&fd, with ? 1 : 0);
    REQUIRE(send_transfer(ends.sender(), {verb, false, false, 1, 0}, name, fds, soon()));
    const auto received = receive_transfer(ends.receiver(), soon());
    REQUIRE(received);
    CHECK(received->fds.size() == fds.size());
    const auto wrong = std::span<const int>(&fd, with ? 0 : 1);
    REQUIRE(send_transfer(ends.sender(), {verb, false, false, 1, 0}, name, wrong, soon()));
    CHECK(receives_malformed(ends));
    REQUIRE(send_transfer(ends.sender(), {verb, false, false, 1, 0}, Bytes(HeldKey::kSize + 1), fds, soon()));
    CHECK(receives_malformed(ends));
  }
}

TEST_CASE("frame: the name of what is held has 10 bytes and a known kind") {
  const Bytes name = encode(HeldKey{1, HeldKind::Container, 0});
  CHECK_FALSE(decode_held({}));
  CHECK_FALSE(decode_held(BytesView(name).first(9)));
  Bytes longer = name;
  longer.push_back(0);
  CHECK_FALSE(decode_held(longer));
  Bytes unknown = name;
  unknown[8] = 0xff;
  CHECK_FALSE(decode_held(unknown));
}
