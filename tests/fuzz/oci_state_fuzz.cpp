// SPDX-License-Identifier: Apache-2.0
// The documents that vtpm-hook reads: the OCI state, and config.json for its root.
#include <vtpm/device/oci_state.h>

#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = vtpm::as_text({data, size});
  if (const auto state = vtpm::device::parse_oci_state(text)) {
    if (state->id.empty() || state->bundle.front() != '/' || state->pid < 0) std::abort();
  }
  if (const auto root = vtpm::device::root_path(text, "/bundle"); root && root->front() != '/') std::abort();
  return 0;
}
