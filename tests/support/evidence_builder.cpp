// SPDX-License-Identifier: Apache-2.0
#include "tests/support/evidence_builder.h"

#include <vtpm/tpm/constants.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <tss2/tss2_mu.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace vtpm::test {
namespace {

constexpr std::size_t kCoordinate = 32;

// A test's own material that cannot be made is no test result.
void require(bool condition) {
  if (!condition) std::abort();
}

template <class T, class Marshal>
Bytes marshalled(const T& value, Marshal marshal) {
  Bytes bytes(4096);
  std::size_t offset = 0;
  require(marshal(&value, bytes.data(), bytes.size(), &offset) == TSS2_RC_SUCCESS);
  bytes.resize(offset);
  return bytes;
}

TPM2B_ECC_PARAMETER parameter(const BIGNUM* number) {
  TPM2B_ECC_PARAMETER out{};
  out.size = kCoordinate;
  require(BN_bn2binpad(number, out.buffer, kCoordinate) == kCoordinate);
  return out;
}

TPM2B_ECC_PARAMETER coordinate(const EVP_PKEY* key, const char* name) {
  BIGNUM* number = nullptr;
  require(EVP_PKEY_get_bn_param(key, name, &number) == 1);
  const auto out = parameter(number);
  BN_free(number);
  return out;
}

evidence::LoggedEntry logged(const log::MerkleTree& tree, std::uint64_t index, const std::string& entry) {
  const BytesView bytes = as_bytes(entry);
  return {Bytes(bytes.begin(), bytes.end()), index, *tree.inclusion_proof(index, tree.size())};
}

void append(log::MerkleTree& tree, std::string_view entry) {
  require(tree.append(log::leaf_hash(as_bytes(entry))).has_value());
}

evidence::SignedQuote signed_quote(const SigningKey& key, BytesView extra_data, const tpm::PcrValues& pcrs) {
  evidence::SignedQuote out;
  out.ak_public = key.public_area();
  QuotePlan plan;
  plan.extra_data.assign(extra_data.begin(), extra_data.end());
  plan.pcrs = pcrs;
  out.quote = make_quote(plan);
  out.signature = key.sign(out.quote);
  out.pcrs = pcrs;
  return out;
}

}  // namespace

struct SigningKey::State {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_PKEY_free(key); }
};

SigningKey::SigningKey() : state_(std::make_shared<State>()) {
  require(state_->key != nullptr);
}

Bytes SigningKey::public_area(std::uint32_t attributes, std::uint16_t scheme_hash,
                              std::uint16_t name_alg) const {
  TPMT_PUBLIC area{};
  area.type = TPM2_ALG_ECC;
  area.nameAlg = name_alg;
  area.objectAttributes = attributes;
  auto& ecc = area.parameters.eccDetail;
  ecc.symmetric.algorithm = TPM2_ALG_NULL;
  ecc.scheme.scheme = TPM2_ALG_ECDSA;
  ecc.scheme.details.ecdsa.hashAlg = scheme_hash;
  ecc.curveID = TPM2_ECC_NIST_P256;
  ecc.kdf.scheme = TPM2_ALG_NULL;
  area.unique.ecc.x = coordinate(state_->key, OSSL_PKEY_PARAM_EC_PUB_X);
  area.unique.ecc.y = coordinate(state_->key, OSSL_PKEY_PARAM_EC_PUB_Y);
  return marshalled(area, Tss2_MU_TPMT_PUBLIC_Marshal);
}

Bytes SigningKey::name() const {
  return *tpm::name_of_public(public_area());
}

Bytes SigningKey::sign(BytesView message) const {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  Bytes der(128);
  std::size_t size = der.size();
  require(EVP_DigestSignInit_ex(context, nullptr, "SHA256", nullptr, nullptr, state_->key, nullptr) == 1);
  require(EVP_DigestSign(context, der.data(), &size, message.data(), message.size()) == 1);
  EVP_MD_CTX_free(context);
  const unsigned char* in = der.data();
  ECDSA_SIG* pair = d2i_ECDSA_SIG(nullptr, &in, static_cast<long>(size));
  require(pair != nullptr);
  TPMT_SIGNATURE signature{};
  signature.sigAlg = TPM2_ALG_ECDSA;
  signature.signature.ecdsa.hash = TPM2_ALG_SHA256;
  signature.signature.ecdsa.signatureR = parameter(ECDSA_SIG_get0_r(pair));
  signature.signature.ecdsa.signatureS = parameter(ECDSA_SIG_get0_s(pair));
  ECDSA_SIG_free(pair);
  return marshalled(signature, Tss2_MU_TPMT_SIGNATURE_Marshal);
}

Bytes make_quote(const QuotePlan& plan) {
  TPMS_ATTEST attest{};
  attest.magic = plan.magic;
  attest.type = plan.type;
  attest.qualifiedSigner.size = 34;  // not looked at: the Name of the AK is checked
  attest.extraData.size = static_cast<UINT16>(plan.extra_data.size());
  std::ranges::copy(plan.extra_data, attest.extraData.buffer);
  attest.clockInfo = {123456, 3, 1, TPM2_YES};
  attest.firmwareVersion = plan.firmware_version;
  if (plan.type == TPM2_ST_ATTEST_QUOTE) {
    auto& said = attest.attested.quote;
    said.pcrSelect.count = 1;
    auto& selection = said.pcrSelect.pcrSelections[0];
    selection.hash = plan.bank;
    selection.sizeofSelect = 3;
    for (const auto& [pcr, value] : plan.pcrs)
      selection.pcrSelect[pcr / 8] |= static_cast<BYTE>(1U << (pcr % 8));
    const auto digest = tpm::pcr_digest(plan.pcrs);
    said.pcrDigest.size = digest.size();
    std::ranges::copy(digest, said.pcrDigest.buffer);
  }
  return marshalled(attest, Tss2_MU_TPMS_ATTEST_Marshal);
}

void set_launch(EvidencePlan& plan, const log::Launch& launch) {
  const std::string document = log::launch_document(launch);
  plan.create.launch = tpm::sha256(as_bytes(document));
  plan.create.instance = launch.instance;
  plan.create.owner = launch.owner;
  plan.create.container = launch.container;
  plan.create.image = launch.image;
  plan.create.config = launch.config;
  plan.events = log::EventLog();
  plan.events.append(tpm::kLaunchPcr, plan.create.launch, log::kLaunchContent, document);
  const auto statement = tpm::sha256(as_bytes("migrated schema"));
  plan.events.append(tpm::kOperatorPcr, statement, log::kStatementContent, "schema version 3");
  for (const auto& [pcr, value] : plan.events.replay())
    plan.vtpm_pcrs[pcr] = value;
}

EvidencePlan make_plan(log::AnchorKind kind) {
  EvidencePlan plan;
  plan.anchor_kind = kind;
  for (unsigned pcr = 0; pcr < 8; ++pcr)
    plan.anchor_pcrs[pcr] = tpm::sha256(as_bytes("firmware " + std::to_string(pcr)));
  for (unsigned pcr = 0; pcr < tpm::kPcrCount; ++pcr)
    plan.vtpm_pcrs[pcr] = {};
  plan.vtpm_pcrs[10] = tpm::sha256(as_bytes("the tenant's own"));
  plan.nonce.assign(32, 0x5a);
  plan.start = {kNow - 60'000,
                kind,
                plan.anchor_key.name(),
                plan.anchor_pcrs,
                tpm::sha256(as_bytes("vtpmd binary")),
                tpm::sha256(as_bytes("vtpm-engine binary")),
                "0.1.0"};
  plan.create.time = kNow - 30'000;
  plan.create.ek_name = SigningKey().name();
  plan.create.ak_name = plan.vtpm_key.name();
  plan.create.host_start = kStartIndex;
  set_launch(plan, {"inst-1", 0, "container-1", kImage, kConfig});
  return plan;
}

evidence::Evidence build(const EvidencePlan& plan) {
  const std::string start = log::serialize(plan.start), create = log::serialize(plan.create);
  log::MemoryNodes nodes;
  log::MerkleTree tree(nodes);
  const std::string first =
      plan.earlier_start ? log::serialize(*plan.earlier_start) : log::serialize(log::HostStop{kNow - 90'000});
  append(tree, first);
  append(tree, plan.create_before_start ? create : start);
  append(tree, log::serialize(log::InstanceDestroy{kNow - 50'000, "inst-0", "requested"}));
  append(tree, plan.create_before_start ? start : create);
  append(tree, log::serialize(log::InstanceDestroy{kNow - 20'000, "inst-9", "container-ended"}));
  const std::uint64_t start_index = plan.create_before_start ? 3 : kStartIndex;

  log::MemoryNodes nonce_nodes;
  log::MerkleTree nonces(nonce_nodes);
  append(nonces, "somebody else's nonce");
  if (plan.fresh) append(nonces, as_text(plan.nonce));
  append(nonces, "a third nonce");

  evidence::Evidence out{};
  out.anchor_kind = plan.anchor_kind;
  out.epoch = {tree.size(), *tree.root(), *nonces.root(), plan.time};
  out.anchor = signed_quote(plan.anchor_key, evidence::qualifying_data(out.epoch), plan.anchor_pcrs);
  out.host_start = plan.earlier_start ? logged(tree, 0, first) : logged(tree, start_index, start);
  out.instance_create = logged(tree, 4 - start_index, create);
  out.nonce = plan.nonce;
  if (plan.fresh) out.nonce_proof = evidence::NonceProof{1, 3, *nonces.inclusion_proof(1, 3)};
  out.vtpm =
      signed_quote(plan.vtpm_key, evidence::qualifying_data(plan.nonce, out.anchor.quote), plan.vtpm_pcrs);
  out.event_log = plan.events;
  return out;
}

evidence::Policy strict_policy(const EvidencePlan& plan) {
  evidence::Policy policy;
  policy.anchor_aks = {plan.anchor_key.name()};
  policy.anchor_pcrs[0] = {plan.anchor_pcrs.at(0), tpm::Sha256{}};
  policy.anchor_pcrs[7] = {plan.anchor_pcrs.at(7)};
  policy.vtpmd = {plan.start.vtpmd};
  policy.engine = {plan.start.engine};
  policy.images = {kImage};
  policy.configs = {kConfig};
  policy.pcrs[10] = {plan.vtpm_pcrs.at(10)};
  policy.require_fresh = true;
  return policy;
}

evidence::Expectation expectation(const EvidencePlan& plan) {
  return {plan.nonce, kNow};
}

}  // namespace vtpm::test
