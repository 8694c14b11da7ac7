// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/target.h"

#include "tests/bench/stream_tcti.h"

#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

namespace {

constexpr std::string_view kStream = "stream:";
constexpr TPM2_HANDLE kIndex = 0x01000010;
constexpr std::uint8_t kWritten = 32;   // bytes of an NV_Write
constexpr std::size_t kWrittenAt = 33;  // where they are in the command

struct FreeEsys {
  void operator()(void* memory) const { Esys_Free(memory); }
};
template <typename T>
using EsysOwned = std::unique_ptr<T, FreeEsys>;

// A P-256 key: restricted signing with ECDSA, or the TCG's storage key.
TPM2B_PUBLIC p256(bool signing) {
  TPM2B_PUBLIC key{};
  TPMT_PUBLIC& area = key.publicArea;
  area.type = TPM2_ALG_ECC;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_RESTRICTED |
                          (signing ? TPMA_OBJECT_SIGN_ENCRYPT : TPMA_OBJECT_DECRYPT);
  TPMS_ECC_PARMS& parameters = area.parameters.eccDetail;
  parameters.curveID = TPM2_ECC_NIST_P256;
  parameters.kdf.scheme = TPM2_ALG_NULL;
  if (signing) {
    parameters.symmetric.algorithm = TPM2_ALG_NULL;
    parameters.scheme.scheme = TPM2_ALG_ECDSA;
    parameters.scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
  } else {
    parameters.symmetric.algorithm = TPM2_ALG_AES;
    parameters.symmetric.keyBits.aes = 128;
    parameters.symmetric.mode.aes = TPM2_ALG_CFB;
    parameters.scheme.scheme = TPM2_ALG_NULL;
  }
  return key;
}

}  // namespace

void must(TSS2_RC code, const std::string& what) {
  if (code == TSS2_RC_SUCCESS) return;
  std::fprintf(stderr, "%s: %s\n", what.c_str(), Tss2_RC_Decode(code));
  std::exit(1);
}

Target::Target(std::string name, const std::string& tcti, bool signing)
    : name_(std::move(name)), held_(tcti.starts_with(kStream)) {
  open(tcti);
  must(Esys_Initialize(&esys_, tcti_, nullptr), name_ + ": Esys_Initialize");
  if (signing) signing_key_ = create_primary(true);
}

Target::~Target() {
  if (index_ != ESYS_TR_NONE)
    must(Esys_NV_UndefineSpace(esys_, ESYS_TR_RH_OWNER, index_, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE),
         name_ + ": NV_UndefineSpace");
  if (signing_key_ != ESYS_TR_NONE) flush(signing_key_);
  Esys_Finalize(&esys_);
  if (held_) {
    close_stream_tcti(tcti_);
  } else {
    Tss2_TctiLdr_Finalize(&tcti_);
  }
}

void Target::get_random() {
  TPM2B_DIGEST* bytes = nullptr;
  must(Esys_GetRandom(esys_, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, 32, &bytes), name_ + ": GetRandom");
  const EsysOwned<TPM2B_DIGEST> owned(bytes);
}

void Target::pcr_extend() {
  TPML_DIGEST_VALUES digests{};
  digests.count = 1;
  digests.digests[0].hashAlg = TPM2_ALG_SHA256;
  must(Esys_PCR_Extend(esys_, 16, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digests),
       name_ + ": PCR_Extend");
}

void Target::quote() {
  TPM2B_DATA nonce{};
  nonce.size = 32;
  TPMT_SIG_SCHEME scheme{};
  scheme.scheme = TPM2_ALG_NULL;
  TPML_PCR_SELECTION pcrs{};
  pcrs.count = 1;
  pcrs.pcrSelections[0] = {TPM2_ALG_SHA256, 3, {0xff, 0xff, 0xff}};
  TPM2B_ATTEST* quoted = nullptr;
  TPMT_SIGNATURE* signature = nullptr;
  must(Esys_Quote(esys_, signing_key_, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &nonce, &scheme, &pcrs,
                  &quoted, &signature),
       name_ + ": Quote");
  const EsysOwned<TPM2B_ATTEST> owned_quote(quoted);
  const EsysOwned<TPMT_SIGNATURE> owned_signature(signature);
}

void Target::define_index() {
  TPM2B_NV_PUBLIC area{};
  area.nvPublic.nvIndex = kIndex;
  area.nvPublic.nameAlg = TPM2_ALG_SHA256;
  area.nvPublic.attributes = TPMA_NV_OWNERWRITE | TPMA_NV_OWNERREAD | TPMA_NV_NO_DA;
  area.nvPublic.dataSize = kWritten;
  const TPM2B_AUTH auth{};
  must(Esys_NV_DefineSpace(esys_, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &auth,
                           &area, &index_),
       name_ + ": NV_DefineSpace");
}

void Target::nv_write() {
  if (index_ == ESYS_TR_NONE) define_index();
  // TPM2_NV_Write by the owner, who has no auth value, at offset 0.
  std::array<std::uint8_t, 67> command = {0x80, 0x02, 0,    0,    0, 67, 0,    0, 0x01, 0x37, 0x40,
                                          0,    0,    0x01, 0x01, 0, 0,  0x10, 0, 0,    0,    9,
                                          0x40, 0,    0,    9,    0, 0,  0x01, 0, 0,    0,    kWritten};
  ++written_;
  std::memcpy(command.data() + kWrittenAt, &written_, sizeof written_);
  bare(command.data(), command.size(), name_ + ": NV_Write");
}

void Target::get_random_bare() {
  static constexpr std::array<std::uint8_t, 12> kCommand = {0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 32};
  bare(kCommand.data(), kCommand.size(), name_ + ": GetRandom");
}

void Target::bare(const std::uint8_t* command, std::size_t size, const std::string& what) {
  std::array<std::uint8_t, 4096> response;
  std::size_t got = response.size();
  const auto* tcti = reinterpret_cast<TSS2_TCTI_CONTEXT_COMMON_V1*>(tcti_);
  must(tcti->transmit(tcti_, size, command), what);
  must(tcti->receive(tcti_, &got, response.data(), TSS2_TCTI_TIMEOUT_BLOCK), what);
  const bool success =
      got >= 10 && response[6] == 0 && response[7] == 0 && response[8] == 0 && response[9] == 0;
  must(success ? TSS2_RC_SUCCESS : TPM2_RC_FAILURE, what);
}

ESYS_TR Target::create_primary(bool signing) {
  const TPM2B_SENSITIVE_CREATE sensitive{};
  const TPM2B_PUBLIC area = p256(signing);
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  ESYS_TR key = ESYS_TR_NONE;
  must(Esys_CreatePrimary(esys_, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                          &area, &outside, &pcrs, &key, nullptr, nullptr, nullptr, nullptr),
       name_ + ": CreatePrimary");
  return key;
}

ESYS_TR Target::create_hmac_key() {
  TPM2B_SENSITIVE_CREATE sensitive{};
  TPM2B_PUBLIC key{};
  TPMT_PUBLIC& area = key.publicArea;
  area.type = TPM2_ALG_KEYEDHASH;
  area.nameAlg = TPM2_ALG_SHA256;
  area.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                          TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_SIGN_ENCRYPT;
  area.parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_HMAC;
  area.parameters.keyedHashDetail.scheme.details.hmac.hashAlg = TPM2_ALG_SHA256;
  const TPM2B_DATA outside{};
  const TPML_PCR_SELECTION pcrs{};
  ESYS_TR made = ESYS_TR_NONE;
  must(Esys_CreatePrimary(esys_, ESYS_TR_RH_NULL, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
                          &key, &outside, &pcrs, &made, nullptr, nullptr, nullptr, nullptr),
       name_ + ": CreatePrimary");
  return made;
}

void Target::hmac(ESYS_TR key) {
  TPM2B_MAX_BUFFER data{};
  data.size = 32;
  TPM2B_DIGEST* mac = nullptr;
  must(Esys_HMAC(esys_, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &data, TPM2_ALG_SHA256, &mac),
       name_ + ": HMAC");
  const EsysOwned<TPM2B_DIGEST> owned(mac);
}

ESYS_TR Target::load(const TPMS_CONTEXT& context) {
  ESYS_TR key = ESYS_TR_NONE;
  must(Esys_ContextLoad(esys_, &context, &key), name_ + ": ContextLoad");
  return key;
}

TPMS_CONTEXT Target::save(ESYS_TR key) {
  TPMS_CONTEXT* context = nullptr;
  must(Esys_ContextSave(esys_, key, &context), name_ + ": ContextSave");
  const EsysOwned<TPMS_CONTEXT> owned(context);
  return *context;
}

void Target::flush(ESYS_TR key) {
  must(Esys_FlushContext(esys_, key), name_ + ": FlushContext");
}

void Target::open(const std::string& tcti) {
  if (held_) {
    tcti_ = open_stream_tcti(tcti.substr(kStream.size()));
    must(tcti_ == nullptr ? TSS2_TCTI_RC_NO_CONNECTION : TSS2_RC_SUCCESS, name_ + ": connecting to " + tcti);
  } else {
    must(Tss2_TctiLdr_Initialize(tcti.c_str(), &tcti_), name_ + ": opening " + tcti);
  }
}
