// SPDX-License-Identifier: Apache-2.0
// Endorsement key certificates: what a manufacturer says of a TPM (TCG EK Credential Profile 2.x). X.509 in
// DER, all of it hostile until the chain is checked.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <string>
#include <string_view>
#include <vector>

namespace vtpm::tpm {

// Whether the certificate is for the key of a TPMT_PUBLIC. Not a certificate: Malformed. Of another key:
// NotVerified.
Result<> check_certified_key(BytesView certificate, BytesView tpmt_public);

// Whether `certificate` leads over `intermediates` to one of the certificates of `roots` (PEM, one or more),
// all valid at `time` (ms since 1970-01-01T00:00:00Z), the issuers being CAs. An intermediate is trusted for
// nothing by itself. Revocation is not asked for: manufacturers' lists are on the net. Input that does not
// parse: Malformed. A chain that does not hold: NotVerified, with OpenSSL's reason and the certificate it is
// about.
Result<> check_certificate_chain(BytesView certificate, const std::vector<Bytes>& intermediates,
                                 std::string_view roots, std::uint64_t time);

// The certificates of a PEM text as DER, in its order; what is between them is skipped. Malformed when one
// does not parse.
Result<std::vector<Bytes>> certificates_of_pem(std::string_view pem);

// Subject and, where it has any, subject alternative names (a TPM's manufacturer, model and version stand
// there), as one line of printable text. Not a certificate: Malformed.
Result<std::string> describe_certificate(BytesView certificate);

}  // namespace vtpm::tpm
