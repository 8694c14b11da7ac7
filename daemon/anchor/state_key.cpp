// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/state_key.h"

#include "daemon/anchor/attestation_key.h"
#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"
#include "daemon/tss/seal.h"
#include "json/strict.h"

#include <vtpm/os/encoding.h>
#include <vtpm/os/file.h>

#include <openssl/crypto.h>

#include <algorithm>

namespace vtpm::anchor {
namespace {

constexpr std::string_view kFormat = "vtpm-state-key/1";
constexpr std::string_view kPlainMagic = "VTPMKEY1";
constexpr std::size_t kPlainSize = kPlainMagic.size() + sizeof(tpm::Sha256) + kStateKeySize;
constexpr std::size_t kMaxSize = 8192;
constexpr mode_t kOwnerOnly = 0600;

// state-key.json.
struct SealedKey {
  std::uint32_t parent_handle;  // persistent
  Bytes parent_name;
  tss::PcrSelection pcrs;
  tss::Sealed sealed;
};

Error corrupt(const std::string& path, std::string_view finding) {
  return Error(ErrorCode::Corrupt, path + ": " + std::string(finding) +
                                       "; the file was kept. Without it no durable instance can be read: "
                                       "restore it from a backup, or give the old TPM back");
}

Result<SealedKey> parse(std::string_view text) {
  VTPM_TRY(const json::Value document, json::parse(text, kMaxSize));
  VTPM_TRY(json::Reader reader, json::Reader::of(document));
  VTPM_TRY(const std::string format, reader.string("format"));
  if (format != kFormat) return Error(ErrorCode::Malformed, "format: not " + std::string(kFormat));
  VTPM_TRY(const std::uint64_t handle, reader.integer("parent_handle", kLastHandle));
  if (handle < kFirstHandle) return Error(ErrorCode::Malformed, "parent_handle: out of the anchor's range");
  SealedKey key{static_cast<std::uint32_t>(handle), {}, {}, {}};
  VTPM_TRY(key.parent_name, reader.hex("parent_name"));
  VTPM_TRY(key.sealed.public_area, reader.hex("public"));
  VTPM_TRY(key.sealed.private_area, reader.hex("private"));
  VTPM_TRY(const auto pcrs, reader.array("pcrs", tpm::kPcrCount));
  for (const auto& item : pcrs) {
    VTPM_TRY(const auto pcr, item.integer(tpm::kPcrCount - 1));
    key.pcrs.insert(static_cast<unsigned>(pcr));
  }
  VTPM_TRY_VOID(reader.done());
  return key;
}

Result<std::optional<SealedKey>> read_sealed(const std::string& path) {
  const auto bytes = read_file(path, kMaxSize);
  if (!bytes && bytes.error().kind() == ErrorCode::NotFound) return std::optional<SealedKey>();
  if (!bytes) return corrupt(path, bytes.error().context);
  auto key = parse(as_text(*bytes));
  if (!key) return corrupt(path, key.error().context);
  return std::optional<SealedKey>(std::move(*key));
}

Result<> write_sealed(const std::string& path, const SealedKey& key) {
  json::Value document = {{"format", kFormat},
                          {"parent_handle", key.parent_handle},
                          {"parent_name", to_hex(key.parent_name)},
                          {"public", to_hex(key.sealed.public_area)},
                          {"private", to_hex(key.sealed.private_area)}};
  document["pcrs"] = json::Value::array();
  for (const unsigned pcr : key.pcrs)
    document["pcrs"].push_back(pcr);
  return replace_file(path, as_bytes(json::dump(document)), kOwnerOnly);
}

// The Name is compared: a key that somebody on the bus put in its place would not keep the secret.
Result<tss::Object> open_parent(tss::Esys& esys, const SealedKey& key, const std::string& path) {
  VTPM_TRY(auto parent, tss::find(esys, key.parent_handle));
  if (!parent)
    return corrupt(path, "the storage key that it names is not in the TPM, which was cleared or replaced");
  VTPM_TRY(const Bytes name, tss::name_of(esys, *parent));
  if (name != key.parent_name)
    return corrupt(path, "the storage key that it names is another, the TPM was cleared or replaced");
  return std::move(*parent);
}

std::string list_of(const tss::PcrSelection& pcrs) {
  std::string text;
  for (const unsigned pcr : pcrs)
    text += (text.empty() ? "" : ", ") + std::to_string(pcr);
  return text;
}

Error pcrs_differ(const std::string& path, const tss::PcrSelection& pcrs) {
  return Error(
      ErrorCode::Configuration,
      path + ": the host state key is sealed to PCRs " + list_of(pcrs) +
          ", which have other values now: firmware, its settings or the boot changed. Start the machine as "
          "it was when the key was sealed. Before a change that is wanted, start vtpmd once with no PCRs to "
          "seal to, and after it once with them again");
}

Result<Secret> open_sealed(tss::Esys& esys, const tss::Object& parent, const SealedKey& key,
                           const std::string& path) {
  VTPM_TRY(auto outcome, tss::unseal(esys, parent, key.sealed, key.pcrs));
  if (const auto* refused = std::get_if<tss::Refused>(&outcome)) {
    if (tss::plain_code(refused->code) == TPM2_RC_POLICY_FAIL) return pcrs_differ(path, key.pcrs);
    return corrupt(path, tss::to_error("refused by the TPM", refused->code).context);
  }
  auto& secret = std::get<Secret>(outcome);
  if (secret.view().size() != kStateKeySize) return corrupt(path, "it holds a key of another size");
  return std::move(secret);
}

Result<std::uint32_t> persist_parent(tss::Esys& esys, Bytes& name) {
  VTPM_TRY(const std::uint32_t permanent, tss::property(esys, TPM2_PT_PERMANENT));
  if ((permanent & TPMA_PERMANENT_OWNERAUTHSET) != 0)
    return Error(ErrorCode::Configuration,
                 "the TPM's owner hierarchy has an auth value, so the storage key of durable instances "
                 "cannot be made; "
                 "set it empty (tpm2_changeauth -c owner -p OLD) until the first durable instance is made");
  VTPM_TRY(const std::uint32_t handle, free_handle(esys));
  VTPM_TRY(const auto made, tss::create_primary(esys, ESYS_TR_RH_OWNER, identity::srk_template()));
  VTPM_TRY(name, tss::name_of(esys, made.object));
  VTPM_TRY_VOID(tss::persist(esys, made.object, handle));
  return handle;
}

Result<> seal_into(tss::Esys& esys, const tss::Object& parent, SealedKey& key, const Secret& secret,
                   const std::string& path) {
  VTPM_TRY(key.sealed, tss::seal(esys, parent, secret.view(), key.pcrs));
  return write_sealed(path, key);
}

}  // namespace

std::string sealed_key_path(const std::string& state_dir) {
  return state_dir + "/state-key.json";
}

std::string plain_key_path(const std::string& state_dir) {
  return state_dir + "/state.key";
}

Result<std::optional<Secret>> load_sealed_key(tss::Esys& esys, const AnchorConfig& config) {
  const std::string path = sealed_key_path(config.state_dir);
  VTPM_TRY(auto key, read_sealed(path));
  if (!key) return std::optional<Secret>();
  VTPM_TRY(const auto parent, open_parent(esys, *key, path));
  auto secret = open_sealed(esys, parent, *key, path);
  if (!secret && secret.error().kind() == ErrorCode::Malformed) return corrupt(path, secret.error().context);
  if (!secret) return std::move(secret).error();
  if (key->pcrs != config.seal_pcrs) {
    key->pcrs = config.seal_pcrs;
    // The next start tries again; the secret that was had is good meanwhile.
    const auto sealed = seal_into(esys, parent, *key, *secret, path);
    if (!sealed)
      config.report(path + ": not sealed to the PCRs asked for, but as before: " + sealed.error().context);
  }
  return std::optional<Secret>(std::move(*secret));
}

Result<Secret> make_sealed_key(tss::Esys& esys, const AnchorConfig& config) {
  const std::string path = sealed_key_path(config.state_dir);
  SealedKey key{0, {}, config.seal_pcrs, {}};
  VTPM_TRY(Secret secret, Secret::random(kStateKeySize));
  VTPM_TRY(key.parent_handle, persist_parent(esys, key.parent_name));
  auto kept = [&]() -> Result<> {
    VTPM_TRY(const auto parent, open_parent(esys, key, path));
    return seal_into(esys, parent, key, secret, path);
  }();
  if (kept) return secret;
  // Without its record the storage key is of no use to anybody.
  static_cast<void>(tss::evict(esys, key.parent_handle));
  return std::move(kept).error();
}

Result<std::optional<Secret>> load_plain_key(const std::string& state_dir) {
  const std::string path = plain_key_path(state_dir);
  auto bytes = read_file(path, kPlainSize);
  if (!bytes && bytes.error().kind() == ErrorCode::NotFound) return std::optional<Secret>();
  if (!bytes) return corrupt(path, bytes.error().context);
  const Secret content(std::move(*bytes));
  const BytesView view = content.view();
  if (view.size() != kPlainSize || as_text(view.first(kPlainMagic.size())) != kPlainMagic)
    return corrupt(path, "not a host state key");
  const BytesView key = view.last(kStateKeySize);
  if (!std::ranges::equal(view.subspan(kPlainMagic.size(), sizeof(tpm::Sha256)), tpm::sha256(key)))
    return corrupt(path, "damaged");
  return std::optional<Secret>(Secret(Bytes(key.begin(), key.end())));
}

Result<Secret> make_plain_key(const std::string& state_dir) {
  VTPM_TRY(Secret key, Secret::random(kStateKeySize));
  Bytes bytes;
  bytes.reserve(kPlainSize);  // no copy of the key is left behind
  put(bytes, as_bytes(kPlainMagic));
  put(bytes, tpm::sha256(key.view()));
  put(bytes, key.view());
  const Secret content(std::move(bytes));
  VTPM_TRY_VOID(replace_file(plain_key_path(state_dir), content.view(), kOwnerOnly));
  return key;
}

}  // namespace vtpm::anchor
