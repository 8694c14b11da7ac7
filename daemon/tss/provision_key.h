// SPDX-License-Identifier: Apache-2.0
// The fast way to give a TPM a persistent primary key.
#pragma once

#include "daemon/tss/esys.h"

namespace vtpm::tss {

struct PersistentKey {
  Bytes public_area;  // TPMT_PUBLIC
  Bytes name;
};

// TPM2_CreatePrimary in a hierarchy (TPM2_RH_*), TPM2_EvictControl to `handle`, TPM2_FlushContext; every auth
// value empty. Done with the SYS layer below ESYS: ESYS makes an OpenSSL library context for every hash that
// it computes, which for the three keys of an instance took 1.8 ms of 5.1 ms.
Result<PersistentKey> make_persistent_key(Esys& esys, TPM2_HANDLE hierarchy,
                                          const TPMT_PUBLIC& public_template, TPM2_HANDLE handle);

}  // namespace vtpm::tss
