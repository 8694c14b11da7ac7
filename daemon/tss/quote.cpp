// SPDX-License-Identifier: Apache-2.0
#include "daemon/tss/quote.h"

#include "daemon/tss/marshal.h"

#include <algorithm>

namespace vtpm::tss {
namespace {

struct Signed {
  Bytes quote;
  Bytes signature;
};

PcrSelection from_list(const TPML_PCR_SELECTION& list) {
  PcrSelection selection;
  for (const auto& bank :
       std::span(list.pcrSelections, std::min<std::size_t>(list.count, TPM2_NUM_PCR_BANKS)))
    for (unsigned pcr = 0; bank.hash == TPM2_ALG_SHA256 && pcr < bank.sizeofSelect * 8U; ++pcr)
      if ((bank.pcrSelect[pcr / 8] >> (pcr % 8) & 1) != 0) selection.insert(pcr);
  return selection;
}

// One TPM2_PCR_Read: moves what it gave from `wanted` to `values`.
Result<> read_some(Esys& esys, PcrSelection& wanted, tpm::PcrValues& values) {
  const TPML_PCR_SELECTION list = to_list(wanted);
  TPML_PCR_SELECTION* given_list = nullptr;
  TPML_DIGEST* digest_list = nullptr;
  VTPM_TRY_VOID(esys.call("TPM2_PCR_Read", [&](ESYS_CONTEXT* context) {
    return Esys_PCR_Read(context, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &list, nullptr, &given_list,
                         &digest_list);
  }));
  const EsysPtr<TPML_PCR_SELECTION> given_owner(given_list);
  const EsysPtr<TPML_DIGEST> digests(digest_list);
  const PcrSelection given = from_list(*given_list);
  if (given.empty())
    return Error(ErrorCode::Unsupported, "the TPM has no SHA-256 PCR bank with the selected PCRs");
  if (given.size() != digests->count ||
      !std::includes(wanted.begin(), wanted.end(), given.begin(), given.end()))
    return Error(ErrorCode::Malformed, "TPM2_PCR_Read: values that were not asked for");
  std::size_t next = 0;
  for (unsigned pcr : given) {
    const TPM2B_DIGEST& digest = digests->digests[next++];
    VTPM_TRY(values[pcr], tpm::sha256_from_bytes({digest.buffer, digest.size}));
    wanted.erase(pcr);
  }
  return {};
}

Result<std::variant<Signed, Refused>> sign(Esys& esys, const Object& key, const tpm::Sha256& qualifying_data,
                                           const PcrSelection& selection) {
  TPM2B_DATA data{};
  data.size = static_cast<std::uint16_t>(qualifying_data.size());
  std::copy(qualifying_data.begin(), qualifying_data.end(), data.buffer);
  TPMT_SIG_SCHEME scheme{};
  scheme.scheme = TPM2_ALG_NULL;  // the key has its own
  const TPML_PCR_SELECTION list = to_list(selection);
  TPM2B_ATTEST* attest = nullptr;
  TPMT_SIGNATURE* signature = nullptr;
  VTPM_TRY(const TSS2_RC rc, esys.execute("TPM2_Quote", [&](ESYS_CONTEXT* context) {
    return Esys_Quote(context, key.handle(), ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &data, &scheme,
                      &list, &attest, &signature);
  }));
  if (rc != TSS2_RC_SUCCESS) return std::variant<Signed, Refused>(Refused{rc});
  const EsysPtr<TPM2B_ATTEST> attest_owner(attest);
  const EsysPtr<TPMT_SIGNATURE> signature_owner(signature);

  Signed made;
  made.quote.assign(attest->attestationData, attest->attestationData + attest->size);
  VTPM_TRY(made.signature, marshal_signature(*signature));
  return std::variant<Signed, Refused>(std::move(made));
}

bool matches(const tpm::Quote& quote, const tpm::PcrValues& values) {
  return std::ranges::equal(quote.pcr_digest, tpm::pcr_digest(values));
}

}  // namespace

TPML_PCR_SELECTION to_list(const PcrSelection& selection) noexcept {
  TPML_PCR_SELECTION list{};
  list.count = 1;
  auto& bank = list.pcrSelections[0];
  bank.hash = TPM2_ALG_SHA256;
  bank.sizeofSelect = tpm::kPcrCount / 8;
  for (unsigned pcr : selection)
    bank.pcrSelect[pcr / 8] = static_cast<BYTE>(bank.pcrSelect[pcr / 8] | 1U << (pcr % 8));
  return list;
}

Result<tpm::PcrValues> read_pcrs(Esys& esys, const PcrSelection& selection) {
  tpm::PcrValues values;
  for (PcrSelection wanted = selection; !wanted.empty();)
    VTPM_TRY_VOID(read_some(esys, wanted, values));
  return values;
}

Result<std::variant<Quoted, Refused>> try_quote(Esys& esys, const Object& key,
                                                const tpm::Sha256& qualifying_data,
                                                const PcrSelection& selection) {
  using Outcome = std::variant<Quoted, Refused>;
  for (int attempt = 0; attempt < kQuoteAttempts; ++attempt) {
    VTPM_TRY(auto outcome, sign(esys, key, qualifying_data, selection));
    if (const auto* refused = std::get_if<Refused>(&outcome)) return Outcome(*refused);
    auto& made = std::get<Signed>(outcome);
    VTPM_TRY(const tpm::Quote quote, tpm::parse_quote(made.quote));
    // A PCR may have been extended between the quote and the reading, or between two commands of the reading
    // and before the quote of the next attempt.
    // Somebody may extend a PCR after the quote or between two commands of the reading: then quote again.
    VTPM_TRY(tpm::PcrValues values, read_pcrs(esys, selection));
    if (matches(quote, values))
      return Outcome(Quoted{std::move(made.quote), std::move(made.signature), std::move(values)});
  }
  return Error(ErrorCode::Busy, "PCRs change faster than they can be quoted");
}

}  // namespace vtpm::tss
