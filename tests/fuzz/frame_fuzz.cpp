// SPDX-License-Identifier: Apache-2.0
// The parser of engine frames: no input makes it misbehave, and what it accepts encodes to the same bytes.
#include "daemon/ipc/frame.h"

#include <algorithm>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace vtpm;
  const BytesView input(bytes, size);
  const auto frame = ipc::decode(input);
  if (frame) {
    const Bytes again = ipc::encode(frame->head, frame->payload);
    if (!std::equal(again.begin(), again.end(), input.begin(), input.end())) std::abort();
  }
  if (size >= 4) {
    const auto error = ipc::error_from_reply(get_be<std::uint32_t>(input), input.subspan(4));
    for (const char c : error.context)
      if (c < 0x20 || c > 0x7e) std::abort();
  }
  return 0;
}
