// SPDX-License-Identifier: Apache-2.0
// What a TPM has: handles, properties, PCR banks (TPM2_GetCapability), and its Startup.
#pragma once

#include "daemon/tss/esys.h"

#include <map>
#include <string>
#include <vector>

namespace vtpm::tss {

// TPM2_Startup(CLEAR). `if_needed`: a TPM that was started already is not an error.
Result<> startup(Esys& esys, bool if_needed);

// The handles in [first, last], ascending; first and last are of one kind (TPM2_HT_*).
Result<std::vector<TPM2_HANDLE>> handles(Esys& esys, TPM2_HANDLE first, TPM2_HANDLE last);

// All loaded transient objects.
Result<std::vector<TPM2_HANDLE>> transient_objects(Esys& esys);

// The value of one TPM_PT. A TPM that does not know it: NotFound.
Result<std::uint32_t> property(Esys& esys, TPM2_PT property);

// Manufacturer and vendor strings as one text, "IBM SW TPM": printable ASCII, single spaces.
Result<std::string> vendor(Esys& esys);

// TPM2_PT_FIRMWARE_VERSION_1 and _2.
Result<std::uint64_t> firmware_version(Esys& esys);

// The allocated PCR banks, with their selections.
Result<TPML_PCR_SELECTION> pcr_banks(Esys& esys);

}  // namespace vtpm::tss
