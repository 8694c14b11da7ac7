// SPDX-License-Identifier: Apache-2.0
// Provisioned instances on real engines, and what their tenants do with them.
#pragma once

#include "daemon/identity/identity.h"
#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"
#include "daemon/tss/quote.h"

#include <catch2/catch.hpp>
#include <unistd.h>

namespace vtpm::test {

inline constexpr std::string_view kLaunch = R"({"instance":"test"})";

inline ipc::Zygote& zygote() {
  static const auto the_zygote =
      std::move(ipc::Zygote::start(VTPM_BIN_DIR "/vtpm-engine", STDERR_FILENO).value());
  return *the_zygote;
}

// A provisioned TPM; `tenant` speaks to it as its tenant does, at locality 0.
struct Instance {
  ipc::SpawnedEngine engine = zygote().spawn().value();
  identity::Identity id = make();
  std::unique_ptr<tss::Esys> tenant =
      std::move(tss::Esys::make(tss::make_tcti(tss::over_engine(*engine.link, tpm::Locality::tenant())),
                                tss::Esys::Patience{0})
                    .value());

  Result<TSS2_RC> run(const tss::Esys::Call& call) const {
    return tenant->execute("a tenant's command", call);
  }

 private:
  identity::Identity make() const {
    if (const auto powered = engine.link->power_on(); !powered)
      throw_exception_from_error(powered.error(), {});
    return identity::provision(*engine.link, kLaunch).value();
  }
};

inline Result<TSS2_RC> extend_as_tenant(const Instance& instance, unsigned pcr) {
  TPML_DIGEST_VALUES values{};
  values.count = 1;
  values.digests[0].hashAlg = TPM2_ALG_SHA256;
  return instance.run([&](ESYS_CONTEXT* context) {
    return Esys_PCR_Extend(context, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                           &values);
  });
}

// TPM2_HierarchyChangeAuth from an empty auth value to "secret".
inline Result<TSS2_RC> set_hierarchy_auth(const Instance& instance, ESYS_TR hierarchy) {
  constexpr std::string_view kAuth = "secret";
  TPM2B_AUTH auth{};
  auth.size = kAuth.size();
  std::copy(kAuth.begin(), kAuth.end(), auth.buffer);
  return instance.run([&](ESYS_CONTEXT* context) {
    return Esys_HierarchyChangeAuth(context, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &auth);
  });
}

}  // namespace vtpm::test
