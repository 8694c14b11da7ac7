// SPDX-License-Identifier: Apache-2.0
#include "daemon/identity/identity.h"

#include "daemon/identity/provision.h"
#include "daemon/tss/capability.h"

#include <algorithm>

namespace vtpm::identity {
namespace {

// An engine's TPM is never busy by itself, and an engine makes room for the supervisor's objects.
constexpr tss::Esys::Patience kNoPatience{0};

Result<std::unique_ptr<tss::Esys>> connect(ipc::EngineLink& engine, tpm::Locality locality) {
  return tss::Esys::make(tss::make_tcti(tss::over_engine(engine, locality)), kNoPatience);
}

Result<> start(ipc::EngineLink& engine, tss::Esys& esys) {
  VTPM_TRY_VOID(tss::startup(esys, false));
  VTPM_TRY(const bool power_cycle, keep_sha256_bank(esys));
  if (!power_cycle) return {};
  VTPM_TRY_VOID(engine.shutdown());
  VTPM_TRY_VOID(engine.power_on());
  return tss::startup(esys, false);
}

}  // namespace

Result<Identity> provision(ipc::EngineLink& engine, std::string_view launch_document) {
  // Locality 0, as a tenant: nothing that is made here depends on the supervisor's locality.
  VTPM_TRY(const auto esys, connect(engine, tpm::Locality::tenant()));
  VTPM_TRY_VOID(start(engine, *esys));
  VTPM_TRY_VOID(set_lockout_parameters(*esys));
  VTPM_TRY(Identity identity, create_identity(*esys));
  VTPM_TRY_VOID(engine.hash_sequence(as_bytes(launch_document)));
  VTPM_TRY_VOID(close_platform(*esys));
  return identity;
}

Result<> resume(ipc::EngineLink& engine, const Identity& known, std::string_view launch_document) {
  VTPM_TRY(const auto esys, connect(engine, tpm::Locality::tenant()));
  VTPM_TRY_VOID(tss::startup(*esys, false));
  VTPM_TRY_VOID(check_identity(*esys, known));
  VTPM_TRY_VOID(engine.hash_sequence(as_bytes(launch_document)));
  return close_platform(*esys);
}

Result<InstanceQuote> quote(ipc::EngineLink& engine, const Bytes& ak_name,
                            const tpm::Sha256& qualifying_data) {
  VTPM_TRY(const auto esys, connect(engine, tpm::Locality::tenant()));
  return quote_by_ak(*esys, ak_name, qualifying_data);
}

Result<tpm::PcrValues> read_pcrs(ipc::EngineLink& engine, const std::set<unsigned>& pcrs) {
  VTPM_TRY(const auto esys, connect(engine, tpm::Locality::tenant()));
  return tss::read_pcrs(*esys, pcrs);
}

Result<> extend(ipc::EngineLink& engine, unsigned pcr, const tpm::Sha256& digest) {
  if (pcr >= tpm::kPcrCount) return Error(ErrorCode::Malformed, "no PCR " + std::to_string(pcr));
  VTPM_TRY(const auto esys, connect(engine, tpm::Locality::supervisor()));
  TPML_DIGEST_VALUES values{};
  values.count = 1;
  values.digests[0].hashAlg = TPM2_ALG_SHA256;
  std::copy(digest.begin(), digest.end(), values.digests[0].digest.sha256);
  return esys->call("TPM2_PCR_Extend", [&](ESYS_CONTEXT* context) {
    return Esys_PCR_Extend(context, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                           &values);
  });
}

}  // namespace vtpm::identity
