// SPDX-License-Identifier: Apache-2.0
// make_evidence DIR tpm|embedded: writes evidence.json, of now, and the nonce that it has, in hexadecimal.
#include "tests/support/evidence_builder.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <chrono>
#include <string>
#include <string_view>

int main(int argc, char** argv) {
  using namespace vtpm;
  if (argc != 3) return 2;
  const std::string directory = argv[1];
  const bool embedded = std::string_view(argv[2]) == "embedded";
  auto plan = test::make_plan(embedded ? log::AnchorKind::Embedded : log::AnchorKind::Tpm);
  plan.time = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                             std::chrono::system_clock::now().time_since_epoch())
                                             .count());
  const auto document = evidence::to_json(test::build(plan));
  const bool written = replace_file(directory + "/evidence.json", as_bytes(document), 0644) &&
                       replace_file(directory + "/nonce", as_bytes(to_hex(plan.nonce)), 0644);
  return written ? 0 : 1;
}
