// SPDX-License-Identifier: Apache-2.0
#include "daemon/anchor/attestation_key.h"

#include "daemon/identity/templates.h"
#include "daemon/tss/capability.h"

#include <vtpm/os/encoding.h>

#include <algorithm>

namespace vtpm::anchor {
namespace {

std::string hex(std::uint32_t handle) {
  Bytes bytes;
  put_be(bytes, handle);
  return "0x" + to_hex(bytes);
}

Result<> check_hierarchies(tss::Esys& esys) {
  VTPM_TRY(const std::uint32_t permanent, tss::property(esys, TPM2_PT_PERMANENT));
  if ((permanent & (TPMA_PERMANENT_OWNERAUTHSET | TPMA_PERMANENT_ENDORSEMENTAUTHSET)) == 0) return {};
  return Error(
      ErrorCode::Configuration,
      "the TPM's owner or endorsement hierarchy has an auth value, so the anchor's key cannot be made; "
      "set both empty until it is made (tpm2_changeauth -c owner -p OLD, tpm2_changeauth -c "
      "endorsement -p OLD), start vtpmd once, then set them again");
}

Error key_lost(const Record& record, const std::string& state_dir, std::string_view finding) {
  std::string files = record_path(state_dir);
  if (record.kind == log::AnchorKind::Embedded) files += " and embedded-tpm.state beside it";
  return Error(ErrorCode::Corrupt,
               files + ": the key that it names, at handle " + hex(record.handle) + " of the TPM, " +
                   std::string(finding) +
                   ": the TPM was cleared or replaced. Give the old TPM back; or, to begin anew with another "
                   "key (policies that pin the old one will refuse it), move " +
                   files + " away");
}

}  // namespace

Result<std::uint32_t> free_handle(tss::Esys& esys) {
  VTPM_TRY(const auto taken, tss::handles(esys, kFirstHandle, kLastHandle));
  for (std::uint32_t handle = kFirstHandle; handle <= kLastHandle; ++handle)
    if (!std::ranges::binary_search(taken, handle)) return handle;
  return Error(ErrorCode::Exhausted,
               "all persistent handles from " + hex(kFirstHandle) + " to " + hex(kLastHandle) + " are taken");
}

Result<Record> create_key(tss::Esys& esys, log::AnchorKind kind) {
  VTPM_TRY_VOID(check_hierarchies(esys));
  VTPM_TRY(const std::uint32_t handle, free_handle(esys));
  VTPM_TRY(Secret auth, Secret::random(kAuthSize));
  VTPM_TRY(const Secret random, Secret::random(sizeof(tpm::Sha256)));
  VTPM_TRY(const tpm::Sha256 unique, tpm::sha256_from_bytes(random.view()));
  VTPM_TRY(const auto key, tss::create_primary(esys, ESYS_TR_RH_ENDORSEMENT,
                                               identity::attestation_key_template(unique), auth.view()));
  VTPM_TRY_VOID(tss::persist(esys, key.object, handle));
  VTPM_TRY(Bytes name, tss::name_of(esys, key.object));
  return Record{kind, handle, std::move(name), std::move(auth)};
}

Result<tss::Object> open_key(tss::Esys& esys, const Record& record, const std::string& state_dir) {
  VTPM_TRY(auto key, tss::find(esys, record.handle));
  if (!key) return key_lost(record, state_dir, "is not there");
  VTPM_TRY(const Bytes name, tss::name_of(esys, *key));
  if (name != record.ak_name) return key_lost(record, state_dir, "is another key");
  VTPM_TRY_VOID(tss::set_auth(esys, *key, record.auth.view()));
  return std::move(*key);
}

}  // namespace vtpm::anchor
