// SPDX-License-Identifier: Apache-2.0
// Everything that reads TPM bytes in the library: command and response headers, public areas, quotes,
// signatures and certificates of endorsement keys. The input is tried as each of them.
#include <vtpm/tpm/attest.h>
#include <vtpm/tpm/credential.h>
#include <vtpm/tpm/ek_certificate.h>
#include <vtpm/tpm/header.h>

#include <cstdlib>

using namespace vtpm;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  return ::setenv("TSS2_LOG", "all+none", 1);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const BytesView input(bytes, size);
  const auto command = tpm::check_command(input);
  if (command.code == tpm::ResponseCode::Success && command.header.size != size) std::abort();
  const auto response = tpm::parse_response(input);
  if (response && response->size != size) std::abort();

  if (const auto quote = tpm::parse_quote(input))
    if (!quote->pcrs.empty() && quote->pcrs.back() >= tpm::kPcrCount) std::abort();
  const auto name = tpm::name_of_public(input);
  if (name && name->size() != 34) std::abort();
  if (tpm::check_attestation_key(input) && !name) std::abort();
  if (tpm::make_credential(input, Bytes(34), Secret(Bytes(32))) && !tpm::check_endorsement_key(input))
    std::abort();
  (void)tpm::describe_certificate(input);
  (void)tpm::check_certified_key(input, input);
  // The input as a key, and as a signature by a key: its first 88 bytes are what a P-256 TPMT_PUBLIC has.
  constexpr std::size_t kPublicSize = 88;
  (void)tpm::public_key_pem(input);
  if (size > kPublicSize) {
    const auto area = input.first(kPublicSize), signature = input.subspan(kPublicSize);
    (void)tpm::verify_signature(area, signature, signature);
  }
  return 0;
}
