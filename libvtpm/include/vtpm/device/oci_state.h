// SPDX-License-Identifier: Apache-2.0
// The OCI runtime's state document, as a hook reads it on standard input, and the annotations that ask for a
// TPM.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace vtpm::device {

inline constexpr std::size_t kMaxOciDocument = 4 * 1024 * 1024;

// What dev.vtpm.* annotations ask for.
struct TpmAnnotations {
  bool enable = false;                // dev.vtpm.enable: "true" or "false"
  std::optional<std::string> name;    // dev.vtpm.name
  bool durable = false;               // dev.vtpm.durable
  std::optional<std::string> image;   // dev.vtpm.image-digest: "sha256:" + 64 hex digits
  std::optional<std::string> policy;  // dev.vtpm.require-policy
  bool in_its_cgroup = false;         // dev.vtpm.cgroup: "container", or "daemon"
  bool standard_names = true;  // dev.vtpm.device-names: "standard" (also /dev/tpmrm0, /dev/tpm0) or "vtpm"
};

struct OciState {
  std::string id;
  pid_t pid;  // 0 where the runtime gives none (poststop, crun at createContainer)
  std::string bundle;
  std::optional<std::string> root;  // crun's extension
  TpmAnnotations annotations;
};

// A document that is not JSON, lacks id or bundle, has another type where a string is due, or an unknown or
// contradictory dev.vtpm.* annotation: Malformed, naming it. Unknown members are ignored, as the OCI
// specification demands.
Result<OciState> parse_oci_state(std::string_view json);

// .root.path of an OCI config.json, absolute (relative ones are relative to the bundle).
Result<std::string> root_path(std::string_view config_json, const std::string& bundle);

}  // namespace vtpm::device
