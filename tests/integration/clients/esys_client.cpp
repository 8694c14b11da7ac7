// SPDX-License-Identifier: Apache-2.0
// A client of tpm2-tss's ESYS that names no TCTI. Run in a container by clients_test.py; its one argument
// says what it does. It exits with 0, or says what failed.
#include <poll.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_rc.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

// More than the three objects and three loaded sessions that a TPM has room for.
constexpr int kMany = 12;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "esys_client: %s\n", what.c_str());
  std::exit(1);
}

void must(TSS2_RC code, const char* what) {
  if (code != TSS2_RC_SUCCESS) fail(std::string(what) + ": " + Tss2_RC_Decode(code));
}

void require(bool holds, const char* what) {
  if (!holds) fail(std::string("not so: ") + what);
}

struct Freed {
  void operator()(void* memory) const { Esys_Free(memory); }
};
template <typename T>
using Owned = std::unique_ptr<T, Freed>;

struct Finalized {
  void operator()(ESYS_CONTEXT* context) const { Esys_Finalize(&context); }
};
using Context = std::unique_ptr<ESYS_CONTEXT, Finalized>;

Context open_default() {
  ESYS_CONTEXT* context = nullptr;
  must(Esys_Initialize(&context, nullptr, nullptr), "Esys_Initialize");
  return Context(context);
}

// A key of P-256: an ECDSA key, or a storage key.
TPM2B_PUBLIC key_template(bool signing) {
  TPM2B_PUBLIC key{};
  TPMT_PUBLIC& area = key.publicArea;
  area.type = TPM2_ALG_ECC;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_USERWITHAUTH |
                          (signing ? TPMA_OBJECT_SIGN_ENCRYPT : TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT);
  TPMS_ECC_PARMS& parameters = area.parameters.eccDetail;
  parameters.curveID = TPM2_ECC_NIST_P256;
  parameters.kdf.scheme = TPM2_ALG_NULL;
  parameters.symmetric.algorithm = signing ? TPM2_ALG_NULL : TPM2_ALG_AES;
  parameters.symmetric.keyBits.aes = 128;
  parameters.symmetric.mode.aes = TPM2_ALG_CFB;
  parameters.scheme.scheme = signing ? TPM2_ALG_ECDSA : TPM2_ALG_NULL;
  parameters.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
  return key;
}

constexpr std::string_view kAuth = "a password";

ESYS_TR primary(ESYS_CONTEXT* tpm) {
  const TPM2B_SENSITIVE_CREATE sensitive{};
  const auto area = key_template(false);
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  ESYS_TR handle = ESYS_TR_NONE;
  must(Esys_CreatePrimary(tpm, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                          &area, &outside, &pcrs, &handle, nullptr, nullptr, nullptr, nullptr),
       "CreatePrimary");
  return handle;
}

// A signing key with a password; created in `session`, or with none.
ESYS_TR signing_key(ESYS_CONTEXT* tpm, ESYS_TR parent, ESYS_TR session) {
  TPM2B_SENSITIVE_CREATE sensitive{};
  auto& auth = sensitive.sensitive.userAuth;
  auth.size = static_cast<UINT16>(kAuth.size());
  std::ranges::copy(kAuth, auth.buffer);
  const auto area = key_template(true);
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  TPM2B_PRIVATE* made_private = nullptr;
  TPM2B_PUBLIC* made_public = nullptr;
  must(Esys_Create(tpm, parent, session, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &area, &outside, &pcrs,
                   &made_private, &made_public, nullptr, nullptr, nullptr),
       "Create");
  const Owned<TPM2B_PRIVATE> blob(made_private);
  const Owned<TPM2B_PUBLIC> shown(made_public);
  ESYS_TR handle = ESYS_TR_NONE;
  must(Esys_Load(tpm, parent, session, ESYS_TR_NONE, ESYS_TR_NONE, blob.get(), shown.get(), &handle), "Load");
  must(Esys_TR_SetAuth(tpm, handle, &auth), "TR_SetAuth");
  return handle;
}

void sign(ESYS_CONTEXT* tpm, ESYS_TR key, ESYS_TR session) {
  TPM2B_DIGEST digest{};
  digest.size = 32;
  std::ranges::fill(digest.buffer, 7);
  const TPMT_SIG_SCHEME scheme{TPM2_ALG_NULL, {}};
  const TPMT_TK_HASHCHECK ticket{TPM2_ST_HASHCHECK, TPM2_RH_NULL, {}};
  TPMT_SIGNATURE* made = nullptr;
  must(Esys_Sign(tpm, key, session, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &scheme, &ticket, &made), "Sign");
  const Owned<TPMT_SIGNATURE> signature(made);
  must(Esys_VerifySignature(tpm, key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &digest, made, nullptr),
       "VerifySignature");
}

// A salted HMAC session that encrypts parameters both ways.
ESYS_TR hmac_session(ESYS_CONTEXT* tpm, ESYS_TR salt_key) {
  TPMT_SYM_DEF symmetric{};
  symmetric.algorithm = TPM2_ALG_AES;
  symmetric.keyBits.aes = 128;
  symmetric.mode.aes = TPM2_ALG_CFB;
  ESYS_TR session = ESYS_TR_NONE;
  must(Esys_StartAuthSession(tpm, salt_key, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, nullptr,
                             TPM2_SE_HMAC, &symmetric, TPM2_ALG_SHA256, &session),
       "StartAuthSession");
  constexpr TPMA_SESSION kAttributes =
      TPMA_SESSION_CONTINUESESSION | TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT;
  must(Esys_TRSess_SetAttributes(tpm, session, kAttributes, 0xff), "TRSess_SetAttributes");
  return session;
}

// Twelve keys and twelve encrypting sessions at once: each key is used in each of some sessions.
void many() {
  const auto tpm = open_default();
  const auto parent = primary(tpm.get());
  std::vector<ESYS_TR> sessions;
  std::vector<ESYS_TR> keys;
  for (int i = 0; i < kMany; ++i) {
    sessions.push_back(hmac_session(tpm.get(), parent));
    keys.push_back(signing_key(tpm.get(), parent, sessions.front()));
  }
  for (std::size_t round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < keys.size(); ++i)
      sign(tpm.get(), keys[i], sessions[(i * 5 + round) % sessions.size()]);
  }
  for (const auto handle : keys)
    must(Esys_FlushContext(tpm.get(), handle), "FlushContext of a key");
  for (const auto handle : sessions)
    must(Esys_FlushContext(tpm.get(), handle), "FlushContext of a session");
  must(Esys_FlushContext(tpm.get(), parent), "FlushContext of the parent");
}

// Several open files of one process; a context saved through one is loaded through another.
void openers() {
  std::vector<Context> clients;
  std::vector<ESYS_TR> keys;
  for (int i = 0; i < kMany; ++i) {
    clients.push_back(open_default());
    auto* tpm = clients.back().get();
    keys.push_back(signing_key(tpm, primary(tpm), hmac_session(tpm, ESYS_TR_NONE)));
  }
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < keys.size(); ++i)
      sign(clients[i].get(), keys[i], ESYS_TR_PASSWORD);
  }
  TPMS_CONTEXT* saved = nullptr;
  must(Esys_ContextSave(clients.front().get(), keys.front(), &saved), "ContextSave");
  const Owned<TPMS_CONTEXT> context(saved);
  clients.front().reset();
  ESYS_TR loaded = ESYS_TR_NONE;
  must(Esys_ContextLoad(clients.back().get(), context.get(), &loaded), "ContextLoad in another space");
  TPM2B_AUTH auth{};
  auth.size = static_cast<UINT16>(kAuth.size());
  std::ranges::copy(kAuth, auth.buffer);
  must(Esys_TR_SetAuth(clients.back().get(), loaded, &auth), "TR_SetAuth");
  sign(clients.back().get(), loaded, ESYS_TR_PASSWORD);
}

// The asynchronous interface: the caller polls the device's descriptor and is never blocked.
void asynchronous() {
  const auto tpm = open_default();
  for (int i = 0; i < 50; ++i) {
    must(Esys_GetRandom_Async(tpm.get(), ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, 32), "GetRandom_Async");
    TSS2_TCTI_POLL_HANDLE* handles = nullptr;
    std::size_t count = 0;
    must(Esys_GetPollHandles(tpm.get(), &handles, &count), "GetPollHandles");
    const Owned<TSS2_TCTI_POLL_HANDLE> polled(handles);
    require(count == 1, "the TCTI has one descriptor");
    must(Esys_SetTimeout(tpm.get(), 0), "SetTimeout");
    TPM2B_DIGEST* random = nullptr;
    TSS2_RC code = TSS2_RC_SUCCESS;
    // Whichever layer says it.
    while (((code = Esys_GetRandom_Finish(tpm.get(), &random)) & ~TSS2_RC_LAYER_MASK) ==
           TSS2_BASE_RC_TRY_AGAIN) {
      handles[0].events = POLLIN;
      require(poll(handles, 1, 30000) == 1, "poll says that the response is there");
      require((handles[0].revents & POLLIN) != 0, "poll says POLLIN");
    }
    must(code, "GetRandom_Finish");
    const Owned<TPM2B_DIGEST> bytes(random);
    require(random->size == 32, "32 random bytes");
  }
}

struct Action {
  std::string_view name;
  void (*run)();
};
constexpr std::array kActions{Action{"many", many}, Action{"openers", openers},
                              Action{"asynchronous", asynchronous}};

}  // namespace

int main(int count, char** arguments) {
  for (const auto& action : kActions) {
    if (count != 2 || action.name != arguments[1]) continue;
    action.run();
    std::puts("complete");
    return 0;
  }
  fail("usage: esys_client many|openers|asynchronous");
}
