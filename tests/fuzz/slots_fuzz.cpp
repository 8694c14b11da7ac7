// SPDX-License-Identifier: Apache-2.0
// Two slot files as somebody who can write to the state directory made them: whatever they hold, one is
// chosen or the start is refused, and only what has been sealed with the key is ever taken for a state.
//
// Input: least sequence u8, then a recipe for each slot: kind u8, length u16, bytes. Kind 0: the bytes
// themselves. Else a sealed slot whose sequence and state are the bytes, with what `kind` says broken.
#include "daemon/engine/slot_format.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <cstdlib>

using namespace vtpm;
using namespace vtpm::engine;

namespace {

constexpr std::size_t kMaxState = 4096;

const SlotOwner& owner() {
  static const SlotOwner the_owner{{1, 2, 3, 4, 5, 6, 7, 8}, Secret(Bytes(ipc::kStateKeySize, 0x33))};
  return the_owner;
}

struct Input {
  BytesView rest;
  std::uint8_t byte() {
    if (rest.empty()) return 0;
    const auto value = rest[0];
    rest = rest.subspan(1);
    return value;
  }
  BytesView bytes(std::size_t most) {
    const auto part = rest.first(std::min(rest.size(), most));
    rest = rest.subspan(part.size());
    return part;
  }
};

struct Made {
  Bytes file;
  bool whole;  // exactly as it was sealed
  std::uint64_t sequence;
};

Made make(Input& input) {
  const std::uint8_t kind = input.byte();
  const std::size_t length = (input.byte() << 8 | input.byte()) % kMaxState;
  if (kind == 0) {
    const auto raw = input.bytes(length);
    return {{raw.begin(), raw.end()}, false, 0};
  }
  const std::uint64_t sequence = input.byte();
  Bytes file = encode_slot(owner(), sequence, 0, input.bytes(length)).value();
  switch (kind % 4) {
    case 1:
      return {std::move(file), true, sequence};
    case 2: {  // one byte changed
      const std::uint8_t change = input.byte();
      const std::size_t at = (input.byte() << 8 | input.byte()) % file.size();
      file[at] = static_cast<std::uint8_t>(file[at] ^ change);
      return {std::move(file), change == 0, sequence};
    }
    case 3: {  // cut, and a tail of something else
      const std::size_t size = (input.byte() << 8 | input.byte()) % (file.size() + 1);
      const Bytes sealed = file;
      file.resize(size);
      put(file, input.bytes(64));
      // The tail may happen to be what was cut off. Not compared by memcmp, from which the fuzzer would learn
      // sealed slots: given as raw bytes, they are rightly valid.
      const bool whole =
          file.size() >= sealed.size() && CRYPTO_memcmp(sealed.data(), file.data(), sealed.size()) == 0;
      return {std::move(file), whole, sequence};
    }
    default:
      put(file, input.bytes(5000));
      return {std::move(file), true, sequence};
  }
}

void check(const Made& made, const Slot& slot) {
  const auto* valid = std::get_if<ValidSlot>(&slot);
  if (made.whole != (valid != nullptr)) std::abort();
  if (valid != nullptr && valid->sequence != made.sequence) std::abort();
  if (std::holds_alternative<EmptySlot>(slot) != made.file.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input{{data, size}};
  const std::uint64_t least = input.byte();
  const Made a = make(input);
  const Made b = make(input);
  const Slot slot_a = decode_slot(owner(), a.file);
  const Slot slot_b = decode_slot(owner(), b.file);
  check(a, slot_a);
  check(b, slot_b);
  const auto choice = choose_slot(slot_a, slot_b, least);
  if (!choice) return 0;
  if (!choice->newest) {
    if (!a.file.empty() || !b.file.empty() || least != 0) std::abort();
    return 0;
  }
  const Made& chosen = *choice->newest == SlotName::A ? a : b;
  const Made& other = *choice->newest == SlotName::A ? b : a;
  if (!chosen.whole || chosen.sequence < least) std::abort();
  if (other.whole && other.sequence > chosen.sequence) std::abort();
  return 0;
}
