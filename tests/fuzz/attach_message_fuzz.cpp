// SPDX-License-Identifier: Apache-2.0
// The messages of attach.sock, both ways. What is accepted must come back the same after it is written again.
#include <vtpm/control/attach.h>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vtpm::control;
  if (size == 0) return 0;
  const std::size_t fds = data[0] % 10;
  const vtpm::BytesView text(data + 1, size - 1);
  if (const auto message = parse_attach_message(text, fds)) {
    const std::string written = serialize(*message);
    const auto again = parse_attach_message(vtpm::as_bytes(written), fds);
    if (!again || serialize(*again) != written) std::abort();
  }
  if (const auto id = parse_attach_reply(text)) {
    if (!parse_attach_reply(vtpm::as_bytes(serialize(AttachReply{*id})))) std::abort();
  }
  return 0;
}
