// SPDX-License-Identifier: Apache-2.0
// A TCTI over one connection to a Unix stream socket that is held open: tpm2-tss' swtpm TCTI connects anew
// for every command, which is not what swtpm itself costs.
#pragma once

#include <tss2/tss2_tcti.h>

#include <string>

// Connects. Null and errno on failure.
TSS2_TCTI_CONTEXT* open_stream_tcti(const std::string& path);
void close_stream_tcti(TSS2_TCTI_CONTEXT* context);
