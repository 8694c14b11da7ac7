// SPDX-License-Identifier: Apache-2.0
// The bytes of a slot, and which of two is taken.
#include "daemon/engine/slot_format.h"

#include "tests/support/catch_result.h"

#include <vtpm/os/encoding.h>

#include <algorithm>
#include <set>

using namespace vtpm;
using namespace vtpm::engine;

namespace {

const Bytes kState(1500, 0x42);

SlotOwner owner(std::uint8_t id = 1, std::uint8_t key = 2) {
  return {{id}, Secret(Bytes(ipc::kStateKeySize, key))};
}
Bytes encoded(std::uint64_t sequence, const Bytes& state = kState) {
  return encode_slot(owner(), sequence, 3, state).value();
}
std::string why(const Slot& slot) {
  const auto* unusable = std::get_if<UnusableSlot>(&slot);
  return unusable == nullptr ? "" : unusable->why;
}
Slot valid(std::uint64_t sequence, const Bytes& state = kState) {
  return ValidSlot{sequence, {0, state}};
}
const Slot kEmpty = EmptySlot{};
const Slot kTorn = UnusableSlot{"torn"};

}  // namespace

TEST_CASE("slot: what is encoded is decoded, whatever follows it in the file") {
  Bytes file = encoded(9);
  CHECK(file.size() == kSlotHeaderSize + 4 + kState.size() + kSlotTagSize);
  const Bytes rest(GENERATE(0, 1, 5000), 0xee);
  put(file, rest);
  const Slot slot = decode_slot(owner(), file);
  const auto* found = std::get_if<ValidSlot>(&slot);
  REQUIRE(found != nullptr);
  CHECK(found->sequence == 9);
  CHECK(found->content.failed_tries == 3);
  CHECK(found->content.permanent == kState);
}

TEST_CASE("slot: the header is as FORMATS.md has it") {
  const Bytes file = encoded(0x0102030405060708);
  CHECK(as_text(BytesView(file).first(8)) == "VTPMSLOT");
  CHECK(get_be<std::uint32_t>(file, 8) == 1);
  CHECK(get_be<std::uint32_t>(file, 12) == 4 + kState.size());
  CHECK(get_be<std::uint64_t>(file, 16) == 0x0102030405060708);
  CHECK(get_be<std::uint64_t>(file, 24) == 0x0100000000000000);
}

// A slot that another implementation made from the words of FORMATS.md (Python, hmac and cryptography): the
// key of a commit is part of the format.
TEST_CASE("slot: one that FORMATS.md alone was needed for is read") {
  Bytes key(ipc::kStateKeySize);
  std::ranges::generate(key, [n = std::uint8_t{0}]() mutable { return n++; });
  const SlotOwner other{{0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11}, Secret(std::move(key))};
  const Bytes file =
      from_hex(
          "5654504d534c4f54000000010000001301020304050607080a0b0c0d0e0f1011a0a1a2a3a4a5a6a7a8a9aaab"
          "57e8bf1a5c10aa2f03cde8fc6d886315d3d5060e4b4e9f91c00b767f20ab2006c427c4")
          .value();
  const Slot slot = decode_slot(other, file);
  INFO(why(slot));
  const auto* found = std::get_if<ValidSlot>(&slot);
  REQUIRE(found != nullptr);
  CHECK(found->sequence == 0x0102030405060708);
  CHECK(found->content.failed_tries == 3);
  CHECK(as_text(found->content.permanent) == "permanent state");
}

TEST_CASE("slot: any flipped bit is noticed") {
  const Bytes small = encode_slot(owner(), 5, 0, Bytes(40, 7)).value();
  for (std::size_t bit = 0; bit < small.size() * 8; ++bit) {
    Bytes flipped = small;
    flipped[bit / 8] ^= static_cast<std::uint8_t>(1U << (bit % 8));
    INFO("bit " << bit);
    CHECK_FALSE(why(decode_slot(owner(), flipped)).empty());
  }
}

TEST_CASE("slot: any truncation is noticed, and no bytes at all are an empty slot") {
  const Bytes small = encode_slot(owner(), 5, 0, Bytes(40, 7)).value();
  for (std::size_t size = 1; size < small.size(); ++size)
    CHECK_FALSE(why(decode_slot(owner(), BytesView(small).first(size))).empty());
  CHECK(std::holds_alternative<EmptySlot>(decode_slot(owner(), {})));
}

TEST_CASE("slot: of another instance, of another key, of a newer version") {
  const Bytes file = encoded(5);
  CHECK(why(decode_slot(owner(9), file)) == "belongs to another instance");
  CHECK(why(decode_slot(owner(1, 9), file)).find("another state key") != std::string::npos);
  Bytes newer = file;
  newer[11] = 2;
  CHECK(why(decode_slot(owner(), newer)).find("version 2") != std::string::npos);
  // Another instance's slot under this one's name: the id is bound to the tag.
  Bytes renamed = encode_slot(owner(9), 5, 0, kState).value();
  renamed[24] = 1;
  CHECK_FALSE(why(decode_slot(owner(), renamed)).empty());
}

TEST_CASE("slot: the same state is never the same bytes twice") {
  std::set<Bytes> nonces;
  for (int i = 0; i < 100; ++i) {
    const Bytes file = encoded(5);
    nonces.emplace(file.begin() + 32, file.begin() + 44);
  }
  CHECK(nonces.size() == 100);
}

TEST_CASE("slot: a state that is too large is an error") {
  CHECK(encode_slot(owner(), 1, 0, Bytes(kMaxSlotContent - 4)));
  CHECK_FALSE(encode_slot(owner(), 1, 0, Bytes(kMaxSlotContent - 3)));
}

TEST_CASE("choice of slot: the highest valid sequence") {
  CHECK(choose_slot(valid(4), valid(5), 0)->newest == SlotName::B);
  CHECK(choose_slot(valid(6), valid(5), 6)->newest == SlotName::A);
  CHECK(choose_slot(valid(1), kEmpty, 1)->newest == SlotName::A);
  CHECK(choose_slot(valid(5), valid(5), 5)->newest);
  CHECK(choose_slot(valid(4), valid(5), 0)->remark.empty());
  const auto torn = choose_slot(kTorn, valid(5), 5);
  REQUIRE(torn);
  CHECK(torn->newest == SlotName::B);
  CHECK(torn->remark.find("slot a: torn") != std::string::npos);
}

TEST_CASE("choice of slot: manufactured only where nothing ever was") {
  const auto fresh = choose_slot(kEmpty, kEmpty, 0);
  REQUIRE(fresh);
  CHECK_FALSE(fresh->newest);
  for (const auto& [a, b, least] : {std::tuple{kEmpty, kEmpty, 1}, {kTorn, kEmpty, 0}, {kEmpty, kTorn, 0}}) {
    const auto choice = choose_slot(a, b, static_cast<std::uint64_t>(least));
    REQUIRE_FALSE(choice);
    CHECK(choice.error().kind() == ErrorCode::Corrupt);
  }
}

TEST_CASE("choice of slot: damage, mixtures and older states are refused") {
  const auto text = [](const Slot& a, const Slot& b, std::uint64_t least) {
    const auto choice = choose_slot(a, b, least);
    REQUIRE_FALSE(choice);
    CHECK(choice.error().kind() == ErrorCode::Corrupt);
    return choice.error().context;
  };
  CHECK(text(kTorn, kTorn, 0) == "both slots: slot a: torn; slot b: torn");
  CHECK(text(valid(4), valid(5), 6).find("rolled back") == 0);
  CHECK(text(kTorn, valid(5), 6).find("slot a: torn") != std::string::npos);
  CHECK(text(valid(5), valid(5, Bytes(3)), 0).find("two different states") != std::string::npos);
}
