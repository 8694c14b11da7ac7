// SPDX-License-Identifier: Apache-2.0
// tpm2-tss's own cryptography through the resource manager, on a real libtpms: ESYS computes and checks every
// HMAC, nonce and encrypted parameter, and would refuse a session or a Name that a swap had damaged.
#include "daemon/tss/esys.h"

#include "tests/support/catch_result.h"
#include "tests/support/local_tpm.h"

#include <vtpm/space/resource_manager.h>

#include <deque>

using namespace vtpm;
using namespace vtpm::test;

namespace {

struct Host {
  Host() { LocalTpm::get().power_cycle(); }
  space::ResourceManager manager{LocalTpm::get()};
};

TPM2B_AUTH auth_of(std::string_view text) {
  TPM2B_AUTH auth{};
  auth.size = static_cast<UINT16>(text.size());
  std::copy(text.begin(), text.end(), auth.buffer);
  return auth;
}

// One open file, and ESYS on it. Every call must succeed unless it is asked for its code.
class Client {
 public:
  explicit Client(Host& host)
      : host_(host), space_(host.manager.open(space::Kind::Managed).value()), esys_(make()) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { host_.manager.close(space_); }

  TSS2_RC code(const tss::Esys::Call& call) { return esys_->execute("a call", call).value(); }
  void call(const tss::Esys::Call& call) { REQUIRE(code(call) == TSS2_RC_SUCCESS); }
  ESYS_CONTEXT* context() { return esys_->context(); }

  // A storage key, as every tool makes it first.
  ESYS_TR parent() {
    TPM2B_PUBLIC area{};
    area.publicArea.type = TPM2_ALG_ECC;
    area.publicArea.nameAlg = TPM2_ALG_SHA256;
    area.publicArea.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
                                       TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
                                       TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT;
    auto& ecc = area.publicArea.parameters.eccDetail;
    ecc.symmetric.algorithm = TPM2_ALG_AES;
    ecc.symmetric.keyBits.aes = 128;
    ecc.symmetric.mode.aes = TPM2_ALG_CFB;
    ecc.scheme.scheme = TPM2_ALG_NULL;
    ecc.curveID = TPM2_ECC_NIST_P256;
    ecc.kdf.scheme = TPM2_ALG_NULL;
    const TPM2B_SENSITIVE_CREATE sensitive{};
    const TPM2B_DATA outside{};
    const TPML_PCR_SELECTION pcrs{};
    ESYS_TR made = ESYS_TR_NONE;
    call([&](ESYS_CONTEXT* c) {
      return Esys_CreatePrimary(c, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                                &area, &outside, &pcrs, &made, nullptr, nullptr, nullptr, nullptr);
    });
    return made;
  }

  // A sealed secret under `parent`, loaded. The secret goes to the TPM encrypted when `session` decrypts.
  ESYS_TR seal(ESYS_TR parent, ESYS_TR session, std::string_view secret, std::string_view auth,
               const TPM2B_DIGEST& policy = {}) {
    TPM2B_PUBLIC area{};
    area.publicArea.type = TPM2_ALG_KEYEDHASH;
    area.publicArea.nameAlg = TPM2_ALG_SHA256;
    area.publicArea.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT;
    if (policy.size == 0) area.publicArea.objectAttributes |= TPMA_OBJECT_USERWITHAUTH;
    area.publicArea.authPolicy = policy;
    area.publicArea.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL;
    TPM2B_SENSITIVE_CREATE sensitive{};
    sensitive.sensitive.userAuth = auth_of(auth);
    sensitive.sensitive.data.size = static_cast<UINT16>(secret.size());
    std::copy(secret.begin(), secret.end(), sensitive.sensitive.data.buffer);
    const TPM2B_DATA outside{};
    const TPML_PCR_SELECTION pcrs{};
    tss::EsysPtr<TPM2B_PRIVATE> sealed_private;
    tss::EsysPtr<TPM2B_PUBLIC> sealed_public;
    call([&](ESYS_CONTEXT* c) {
      TPM2B_PRIVATE* made_private = nullptr;
      TPM2B_PUBLIC* made_public = nullptr;
      const TSS2_RC rc = Esys_Create(c, parent, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &area,
                                     &outside, &pcrs, &made_private, &made_public, nullptr, nullptr, nullptr);
      sealed_private.reset(made_private);
      sealed_public.reset(made_public);
      return rc;
    });
    ESYS_TR made = ESYS_TR_NONE;
    call([&](ESYS_CONTEXT* c) {
      return Esys_Load(c, parent, session, ESYS_TR_NONE, ESYS_TR_NONE, sealed_private.get(),
                       sealed_public.get(), &made);
    });
    const TPM2B_AUTH value = auth_of(auth);
    REQUIRE(Esys_TR_SetAuth(context(), made, &value) == TSS2_RC_SUCCESS);
    return made;
  }

  std::string unseal(ESYS_TR object, ESYS_TR session, ESYS_TR second = ESYS_TR_NONE) {
    std::string secret;
    call([&](ESYS_CONTEXT* c) {
      TPM2B_SENSITIVE_DATA* data = nullptr;
      const TSS2_RC rc = Esys_Unseal(c, object, session, second, ESYS_TR_NONE, &data);
      if (rc == TSS2_RC_SUCCESS) secret.assign(data->buffer, data->buffer + data->size);
      Esys_Free(data);
      return rc;
    });
    return secret;
  }

  ESYS_TR session(TPM2_SE type, TPMA_SESSION attributes, ESYS_TR salt = ESYS_TR_NONE,
                  ESYS_TR bind = ESYS_TR_NONE) {
    TPMT_SYM_DEF aes{};
    aes.algorithm = TPM2_ALG_AES;
    aes.keyBits.aes = 128;
    aes.mode.aes = TPM2_ALG_CFB;
    ESYS_TR made = ESYS_TR_NONE;
    call([&](ESYS_CONTEXT* c) {
      return Esys_StartAuthSession(c, salt, bind, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, nullptr, type,
                                   &aes, TPM2_ALG_SHA256, &made);
    });
    REQUIRE(Esys_TRSess_SetAttributes(context(), made, attributes, 0xff) == TSS2_RC_SUCCESS);
    return made;
  }

 private:
  std::unique_ptr<tss::Esys> make() {
    auto transmit = [this](BytesView command) -> Result<Bytes> {
      VTPM_TRY(const space::Outcome outcome,
               host_.manager.execute(space_, tpm::Locality::tenant(), command, {}));
      return std::get<Bytes>(outcome);
    };
    return std::move(tss::Esys::make(tss::make_tcti(transmit), tss::Esys::Patience{0}).value());
  }

  Host& host_;
  space::SpaceId space_;
  std::unique_ptr<tss::Esys> esys_;
};

constexpr TPMA_SESSION kEncrypted =
    TPMA_SESSION_CONTINUESESSION | TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT;

}  // namespace

TEST_CASE("ESYS: salted, bound and encrypting sessions of many clients go on across swaps") {
  Host host;
  struct Tenant {
    Client client;
    ESYS_TR parent, salted, bound, sealed;
    std::string secret;
    Tenant(Host& h, int i)
        : client(h),
          parent(client.parent()),
          salted(client.session(TPM2_SE_HMAC, kEncrypted, parent)),
          bound(client.session(TPM2_SE_HMAC, TPMA_SESSION_CONTINUESESSION, ESYS_TR_NONE, parent)),
          sealed(client.seal(parent, salted, "secret of " + std::to_string(i), "password")),
          secret("secret of " + std::to_string(i)) {}
  };
  std::deque<Tenant> tenants;
  for (int i = 0; i < 6; ++i)
    tenants.emplace_back(host, i);
  for (int round = 0; round < 10; ++round)
    for (Tenant& t : tenants) {
      CHECK(t.client.unseal(t.sealed, t.salted) == t.secret);
      CHECK(t.client.unseal(t.sealed, t.bound) == t.secret);
      CHECK(t.client.unseal(t.sealed, t.bound, t.salted) == t.secret);
    }
  // Two sessions and two objects each, on three slots each: nearly every step needed a swap.
  CHECK(host.manager.counters().swaps > 150);
  // An encrypted parameter and room to make: the TPM decrypts in the command's buffer and then says
  // OBJECT_MEMORY. The command that is run again must be the client's, not what is left of it.
  for (Tenant& t : tenants)
    CHECK(t.client.unseal(t.client.seal(t.parent, t.salted, "more", "x"), t.salted) == "more");
}

TEST_CASE("ESYS: policies of many clients, with a secret of one object for another, hold across swaps") {
  Host host;
  struct Tenant {
    Client client;
    ESYS_TR parent = client.parent();
    ESYS_TR key = client.seal(parent, ESYS_TR_PASSWORD, "key", "key's password");
    TPM2B_DIGEST policy{};
    ESYS_TR sealed = ESYS_TR_NONE;

    explicit Tenant(Host& h) : client(h) {
      const ESYS_TR trial = client.session(TPM2_SE_TRIAL, TPMA_SESSION_CONTINUESESSION);
      satisfy(trial);
      client.call([&](ESYS_CONTEXT* c) {
        TPM2B_DIGEST* digest = nullptr;
        const TSS2_RC rc = Esys_PolicyGetDigest(c, trial, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest);
        if (rc == TSS2_RC_SUCCESS) policy = *digest;
        Esys_Free(digest);
        return rc;
      });
      sealed = client.seal(parent, ESYS_TR_PASSWORD, "by policy", "and auth", policy);
    }
    void satisfy(ESYS_TR session) {
      client.call([&](ESYS_CONTEXT* c) {
        return Esys_PolicySecret(c, key, session, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, nullptr,
                                 nullptr, nullptr, 0, nullptr, nullptr);
      });
      client.call([&](ESYS_CONTEXT* c) {
        return Esys_PolicyAuthValue(c, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE);
      });
    }
  };
  std::deque<Tenant> tenants;
  for (int i = 0; i < 4; ++i)
    tenants.emplace_back(host);
  std::vector<ESYS_TR> sessions;
  for (Tenant& t : tenants)
    sessions.push_back(t.client.session(TPM2_SE_POLICY, TPMA_SESSION_CONTINUESESSION));
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < tenants.size(); ++i)
      tenants[i].satisfy(sessions[i]);
    for (std::size_t i = 0; i < tenants.size(); ++i)
      CHECK(tenants[i].client.unseal(tenants[i].sealed, sessions[i]) == "by policy");
  }
}

TEST_CASE("ESYS: an exclusive audit session stays exclusive while its own client's contexts are swapped") {
  Host host;
  Client client(host);
  const ESYS_TR parent = client.parent();
  const ESYS_TR audit = client.session(
      TPM2_SE_HMAC, TPMA_SESSION_CONTINUESESSION | TPMA_SESSION_AUDIT | TPMA_SESSION_AUDITEXCLUSIVE);
  std::vector<ESYS_TR> objects;
  const auto audited = [&](const tss::Esys::Call& call) {
    client.call(call);
    TPMA_SESSION seen = 0;
    REQUIRE(Esys_TRSess_GetAttributes(client.context(), audit, &seen) == TSS2_RC_SUCCESS);
    CHECK((seen & TPMA_SESSION_AUDITEXCLUSIVE) != 0);
  };
  for (int i = 0; i < 5; ++i)
    audited([&](ESYS_CONTEXT* c) {
      ESYS_TR sequence = ESYS_TR_NONE;
      const TPM2B_AUTH none{};
      const TSS2_RC rc =
          Esys_HashSequenceStart(c, audit, ESYS_TR_NONE, ESYS_TR_NONE, &none, TPM2_ALG_SHA256, &sequence);
      objects.push_back(sequence);
      return rc;
    });
  for (int round = 0; round < 3; ++round)
    audited([&](ESYS_CONTEXT* c) {
      TPM2B_PUBLIC* area = nullptr;
      const TSS2_RC rc =
          Esys_ReadPublic(c, parent, audit, ESYS_TR_NONE, ESYS_TR_NONE, &area, nullptr, nullptr);
      Esys_Free(area);
      return rc;
    });
  CHECK(host.manager.counters().swaps > 0);
  // Another client's command ends it, as on the bare TPM.
  Client other(host);
  other.call([](ESYS_CONTEXT* c) {
    TPM2B_DIGEST* random = nullptr;
    const TSS2_RC rc = Esys_GetRandom(c, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, 8, &random);
    Esys_Free(random);
    return rc;
  });
  CHECK(client.code([&](ESYS_CONTEXT* c) {
    TPM2B_DIGEST* random = nullptr;
    const TSS2_RC rc = Esys_GetRandom(c, audit, ESYS_TR_NONE, ESYS_TR_NONE, 8, &random);
    Esys_Free(random);
    return rc;
  }) == TPM2_RC_EXCLUSIVE);
}

TEST_CASE("ESYS: contexts go from client to client, and objects become persistent") {
  Host host;
  Client one(host), two(host);
  const ESYS_TR parent = one.parent();
  const ESYS_TR sealed = one.seal(parent, ESYS_TR_PASSWORD, "secret", "password");
  for (int i = 0; i < 4; ++i)
    (void)two.parent();
  TPMS_CONTEXT* saved = nullptr;
  one.call([&](ESYS_CONTEXT* c) { return Esys_ContextSave(c, sealed, &saved); });
  ESYS_TR copy = ESYS_TR_NONE;
  two.call([&](ESYS_CONTEXT* c) { return Esys_ContextLoad(c, saved, &copy); });
  Esys_Free(saved);
  const TPM2B_AUTH value = auth_of("password");
  REQUIRE(Esys_TR_SetAuth(two.context(), copy, &value) == TSS2_RC_SUCCESS);
  CHECK(two.unseal(copy, two.session(TPM2_SE_HMAC, kEncrypted)) == "secret");

  // A session goes too: saved by one program, loaded by the next.
  const ESYS_TR session = one.session(TPM2_SE_HMAC, TPMA_SESSION_CONTINUESESSION);
  one.call([&](ESYS_CONTEXT* c) { return Esys_ContextSave(c, session, &saved); });
  ESYS_TR loaded = ESYS_TR_NONE;
  two.call([&](ESYS_CONTEXT* c) { return Esys_ContextLoad(c, saved, &loaded); });
  Esys_Free(saved);
  CHECK(two.unseal(copy, loaded) == "secret");

  ESYS_TR persistent = ESYS_TR_NONE;
  one.call([&](ESYS_CONTEXT* c) {
    return Esys_EvictControl(c, ESYS_TR_RH_OWNER, parent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                             0x81000005, &persistent);
  });
  CHECK(one.unseal(one.seal(persistent, ESYS_TR_PASSWORD, "under it", "x"), ESYS_TR_PASSWORD) == "under it");
  ESYS_TR gone = ESYS_TR_NONE;
  one.call([&](ESYS_CONTEXT* c) {
    return Esys_EvictControl(c, ESYS_TR_RH_OWNER, persistent, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                             0x81000005, &gone);
  });
}
