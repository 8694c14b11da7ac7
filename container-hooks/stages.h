// SPDX-License-Identifier: Apache-2.0
// What the hook does at the stages of a container's life. Each reads the OCI state from standard input.
#pragma once

#include <vtpm/os/result.h>

#include <string>

namespace vtpm::hook {

struct Options {
  std::string runtime_dir;
  bool enable;  // without the annotation, too
};

// createRuntime, prestart: gets an instance from vtpmd and puts its nodes into the container, if the
// container asks for a TPM; does nothing otherwise. On an error the runtime must not start the container.
Result<> create_runtime(const Options& options);

// poststop: tells vtpmd that the container has ended.
Result<> poststop(const Options& options);

}  // namespace vtpm::hook
