// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/tpm.h"

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_memory.h>
#include <libtpms/tpm_nvfilename.h>
#include <libtpms/tpm_tis.h>
#include <openssl/crypto.h>

#include <array>
#include <cstdlib>
#include <cstring>

namespace vtpm::engine {
namespace {

// What libtpms' callbacks see. libtpms is process-global, so this is too.
struct Store {
  std::array<Bytes, 3> blobs;  // by the index of kNames
  std::uint8_t locality = 0;
};
constexpr std::array<std::string_view, 3> kNames = {TPM_PERMANENT_ALL_NAME, TPM_SAVESTATE_NAME,
                                                    TPM_VOLATILESTATE_NAME};

Store& store() {
  static Store the_store;
  return the_store;
}

Bytes* blob_named(const char* name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return &store().blobs[i];
  return nullptr;
}

void wipe(Bytes& bytes) noexcept {
  OPENSSL_cleanse(bytes.data(), bytes.size());
  bytes.clear();
}

TPM_RESULT nothing_to_do() {
  return TPM_SUCCESS;
}

TPM_RESULT load(unsigned char** data, std::uint32_t* length, std::uint32_t, const char* name) {
  const Bytes* blob = blob_named(name);
  if (blob == nullptr || blob->empty()) return TPM_RETRY;  // "nothing is stored"
  const TPM_RESULT result = TPM_Malloc(data, static_cast<std::uint32_t>(blob->size()));
  if (result != TPM_SUCCESS) return result;
  std::memcpy(*data, blob->data(), blob->size());
  *length = static_cast<std::uint32_t>(blob->size());
  return TPM_SUCCESS;
}

TPM_RESULT keep(const unsigned char* data, std::uint32_t length, std::uint32_t, const char* name) {
  Bytes* blob = blob_named(name);
  if (blob == nullptr) return TPM_FAIL;
  wipe(*blob);
  blob->assign(data, data + length);
  return TPM_SUCCESS;
}

TPM_RESULT forget(std::uint32_t, const char* name, TPM_BOOL must_exist) {
  Bytes* blob = blob_named(name);
  if (blob == nullptr || (blob->empty() && must_exist)) return TPM_FAIL;
  wipe(*blob);
  return TPM_SUCCESS;
}

TPM_RESULT locality_now(TPM_MODIFIER_INDICATOR* locality, std::uint32_t) {
  *locality = store().locality;
  return TPM_SUCCESS;
}

TPM_RESULT no_physical_presence(TPM_BOOL* presence, std::uint32_t) {
  *presence = 0;
  return TPM_SUCCESS;
}

// All of them: for a missing one libtpms falls back to files.
libtpms_callbacks callbacks() {
  libtpms_callbacks table{};
  table.sizeOfStruct = sizeof table;
  table.tpm_nvram_init = nothing_to_do;
  table.tpm_nvram_loaddata = load;
  table.tpm_nvram_storedata = keep;
  table.tpm_nvram_deletename = forget;
  table.tpm_io_init = nothing_to_do;
  table.tpm_io_getlocality = locality_now;
  table.tpm_io_getphysicalpresence = no_physical_presence;
  return table;
}

Error libtpms_error(std::string_view call, TPM_RESULT result) {
  return {ErrorCode::Internal, std::string(call) + ": libtpms result " + std::to_string(result)};
}

}  // namespace

Tpm::Tpm() {
  static bool exists = false;
  if (exists) std::abort();
  exists = true;
}

Tpm::~Tpm() {
  power_off();
  TPM_Free(response_);
  for (Bytes& blob : store().blobs)
    wipe(blob);
}

Result<> Tpm::power_on(BytesView permanent) {
  if (powered_) return Error(ErrorCode::Conflict, "the TPM is powered on already");
  TPM_RESULT result = TPMLIB_ChooseTPMVersion(TPMLIB_TPM_VERSION_2);
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_ChooseTPMVersion", result);
  libtpms_callbacks table = callbacks();
  result = TPMLIB_RegisterCallbacks(&table);
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_RegisterCallbacks", result);
  if (!permanent.empty()) {
    result = TPMLIB_SetState(TPMLIB_STATE_PERMANENT, permanent.data(),
                             static_cast<std::uint32_t>(permanent.size()));
    if (result != TPM_SUCCESS)
      return Error(ErrorCode::Corrupt, "libtpms refuses the permanent state: " + std::to_string(result));
    Bytes& blob = store().blobs[0];
    wipe(blob);
    blob.assign(permanent.begin(), permanent.end());
  }
  result = TPMLIB_MainInit();
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_MainInit", result);
  powered_ = true;
  return {};
}

Result<BytesView> Tpm::process(tpm::Locality locality, BytesView command) {
  store().locality = locality.value();
  std::uint32_t size = 0;
  // libtpms takes the command as non-const and does not write to it.
  const TPM_RESULT result =
      TPMLIB_Process(&response_, &size, &response_capacity_, const_cast<unsigned char*>(command.data()),
                     static_cast<std::uint32_t>(command.size()));
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_Process", result);
  return BytesView(response_, size);
}

Result<> Tpm::hash_sequence(BytesView data) {
  store().locality = 4;
  TPM_RESULT result = TPM_IO_Hash_Start();
  if (result == TPM_SUCCESS) result = TPM_IO_Hash_Data(data.data(), static_cast<std::uint32_t>(data.size()));
  if (result == TPM_SUCCESS) result = TPM_IO_Hash_End();
  if (result != TPM_SUCCESS) return libtpms_error("TPM_IO_Hash", result);
  return {};
}

BytesView Tpm::permanent_state() const noexcept {
  return store().blobs[0];
}

void Tpm::power_off() noexcept {
  if (!powered_) return;
  TPMLIB_Terminate();
  powered_ = false;
}

}  // namespace vtpm::engine
