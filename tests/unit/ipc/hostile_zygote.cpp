// SPDX-License-Identifier: Apache-2.0
// In the place of vtpm-engine: a zygote that tells of a hundred ended engines, the last of them 77, and ends.
#include "daemon/ipc/frame.h"

using namespace vtpm;

int main() {
  constexpr int kControl = 3;
  (void)ipc::send_transfer(kControl, {ipc::Verb::Ready, false, false, 0, 0}, Bytes(4));
  for (std::uint32_t pid = 77 - 99; pid != 78; ++pid) {
    Bytes exited;
    put_be(exited, pid);
    put_be(exited, std::uint32_t{0});
    (void)ipc::send_transfer(kControl, {ipc::Verb::Exited, false, false, 0, 0}, exited);
  }
}
