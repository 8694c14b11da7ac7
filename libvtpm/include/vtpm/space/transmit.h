// SPDX-License-Identifier: Apache-2.0
// What a resource manager sits on: one TPM that takes commands.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/header.h>

namespace vtpm::space {

class Transmit {
 public:
  virtual ~Transmit() = default;
  // Runs one command and blocks until its response, which is valid until the next call. A response code is no
  // error; an Error means that the TPM itself is of no further use.
  virtual Result<BytesView> transmit(tpm::Locality locality, BytesView command) = 0;
};

}  // namespace vtpm::space
