// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/tpm.h"

#include "daemon/engine/fatal.h"
#include "daemon/engine/tpm_commands.h"

#include <libtpms/tpm_error.h>
#include <libtpms/tpm_library.h>
#include <libtpms/tpm_memory.h>
#include <libtpms/tpm_nvfilename.h>
#include <libtpms/tpm_tis.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

namespace vtpm::engine {
namespace {

// What libtpms' callbacks see. libtpms is process-global, so this is too.
struct Store {
  std::array<Bytes, 3> blobs;  // by the index of kNames
  // The permanent state as it was when begin() was called, if it has changed since.
  std::optional<Bytes> before;
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
  if (std::ranges::equal(*blob, BytesView(data, length))) return TPM_SUCCESS;
  Store& state = store();
  if (blob == &state.blobs[0] && !state.before)
    state.before = std::move(*blob);
  else
    wipe(*blob);
  blob->assign(data, data + length);
  return TPM_SUCCESS;
}

// From here on keep() remembers what the permanent state was.
void begin() {
  if (store().before) wipe(*store().before);
  store().before.reset();
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

// Commands that, without a session, leave nothing in NV that their client could miss: the clock alone may
// change. With the last three the resource manager must always get its way: a context that it cannot flush
// would be there for ever, and for everybody.
constexpr std::array<std::uint32_t, 13> kNeedNoNv = {
    0x17a,  // GetCapability
    0x17b,  // GetRandom
    0x17e,  // PCR_Read
    0x173,  // ReadPublic
    0x169,  // NV_ReadPublic
    0x181,  // ReadClock
    0x17d,  // Hash
    0x178,  // ECC_Parameters
    0x17c,  // GetTestResult
    0x18a,  // TestParms
    0x161,  // ContextLoad
    0x162,  // ContextSave
    0x165,  // FlushContext
};

bool needs_no_nv(BytesView command) noexcept {
  const auto check = tpm::check_command(command);
  return check.code != tpm::ResponseCode::Success ||
         (check.header.tag == static_cast<std::uint16_t>(tpm::Tag::NoSessions) &&
          std::ranges::find(kNeedNoNv, check.header.code) != kNeedNoNv.end());
}

// TPM_CC of a command that has passed tpm::check_command().
std::uint32_t code_of(BytesView command) noexcept {
  return tpm::check_command(command).header.code;
}

// After these no try has failed. TPM2_DictionaryAttackParameters, of libtpms, leaves the number as it is.
constexpr std::array<std::uint32_t, 2> kForgetTries = {
    0x126,  // Clear
    0x139,  // DictionaryAttackLockReset
};

// Wrong passwords, of whichever session (Part 2, 6.6.2: format one, error numbers 0x0e and 0x22). The first
// is counted as a failed try, the second in the NV index itself if that is of the type PIN Fail.
enum class Wrong { Neither, AuthFail, BadAuth };
Wrong wrong_password(BytesView response) noexcept {
  constexpr std::uint32_t kFormatOneNumber = 0xbf;
  switch (response_code(response) & kFormatOneNumber) {
    case 0x8e:
      return Wrong::AuthFail;
    case 0xa2:
      return Wrong::BadAuth;
    default:
      return Wrong::Neither;
  }
}

}  // namespace

Snapshot::~Snapshot() {
  wipe(bytes);
}

Tpm::Tpm() {
  static bool exists = false;
  if (exists) std::abort();
  exists = true;
}

Tpm::~Tpm() {
  power_off();
  TPM_Free(response_);
  begin();
  for (Bytes& blob : store().blobs)
    wipe(blob);
}

Result<> Tpm::power_on(BytesView permanent) {
  if (powered_) return Error(ErrorCode::Conflict, "the TPM is powered on already");
  if (slots_ && !permanent.empty())
    return Error(ErrorCode::Conflict, "a durable TPM's state is in its slots");
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

Result<> Tpm::power_on_durable(SlotStore slots) {
  auto loaded = slots.take_loaded();
  auto outcome = power_on(loaded ? BytesView(loaded->permanent) : BytesView());
  slots_.emplace(std::move(slots));
  if (loaded) {
    failed_tries_ = loaded->failed_tries;
    wipe(loaded->permanent);
  } else if (outcome) {
    outcome = commit();
  }
  if (outcome) return outcome;
  power_off();
  slots_.reset();
  wipe(store().blobs[0]);
  return outcome;
}

Result<BytesView> Tpm::process(tpm::Locality locality, BytesView command) {
  return slots_ ? run_durably(locality, command) : run(locality, command);
}

Result<BytesView> Tpm::run(tpm::Locality locality, BytesView command) {
  store().locality = locality.value();
  std::uint32_t size = 0;
  // libtpms takes the command as non-const: an encrypted parameter is decrypted in place.
  const TPM_RESULT result =
      TPMLIB_Process(&response_, &size, &response_capacity_, const_cast<unsigned char*>(command.data()),
                     static_cast<std::uint32_t>(command.size()));
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_Process", result);
  return BytesView(response_, size);
}

Result<BytesView> Tpm::run_durably(tpm::Locality locality, BytesView command) {
  static const Bytes unavailable = tpm::error_response(tpm::ResponseCode::NvUnavailable);
  const bool passing = needs_no_nv(command);
  if (!passing && !commit_rest()) return BytesView(unavailable);
  VTPM_TRY(const Snapshot before, passing ? Snapshot() : volatile_state());
  begin();
  VTPM_TRY(const BytesView response, run(locality, command));
  const std::uint32_t tries = failed_tries_;
  const Wrong wrong = wrong_password(response);
  count_tries(code_of(command), response);
  if (!store().before || commit() || passing) return response;
  // A wrong password counts, whether or not the disk takes it: with the try undone, a full disk would let its
  // owner guess for ever. The command had no other effect, and nothing else runs before this is committed.
  if (wrong == Wrong::Neither) {
    undo(before);
    failed_tries_ = tries;
  }
  return BytesView(unavailable);
}

// The TPM is asked after a Startup alone: a command between those of its clients would end their exclusive
// audit session. The number may be too high, since tries also
// heal with time: then what an unclean stop adds is not taken back, which is what would happen without us.
void Tpm::count_tries(std::uint32_t command, BytesView response) {
  if (wrong_password(response) == Wrong::AuthFail) ++failed_tries_;
  if (response_code(response) != 0) return;
  if (command == static_cast<std::uint32_t>(tpm::CommandCode::Startup)) {
    started_ = true;
    take_back_unclean_stop(aside(), failed_tries_);
    failed_tries_ = failed_tries(aside()).value_or(failed_tries_);
  } else if (std::ranges::find(kForgetTries, command) != kForgetTries.end()) {
    failed_tries_ = 0;
  }
}

Result<> Tpm::hash_sequence(BytesView data) {
  if (!slots_) return hash(data);
  VTPM_TRY_VOID(commit_rest());
  VTPM_TRY(const Snapshot before, volatile_state());
  begin();
  VTPM_TRY_VOID(hash(data));
  if (!store().before) return {};
  auto committed = commit();
  if (!committed) undo(before);
  return committed;
}

Result<> Tpm::hash(BytesView data) {
  store().locality = 4;
  TPM_RESULT result = TPM_IO_Hash_Start();
  if (result == TPM_SUCCESS) result = TPM_IO_Hash_Data(data.data(), static_cast<std::uint32_t>(data.size()));
  if (result == TPM_SUCCESS) result = TPM_IO_Hash_End();
  if (result != TPM_SUCCESS) return libtpms_error("TPM_IO_Hash", result);
  return {};
}

Execute Tpm::aside() {
  return [](BytesView command) -> Bytes {
    store().locality = 0;
    unsigned char* buffer = nullptr;
    std::uint32_t size = 0;
    std::uint32_t capacity = 0;
    const TPM_RESULT result =
        TPMLIB_Process(&buffer, &size, &capacity, const_cast<unsigned char*>(command.data()),
                       static_cast<std::uint32_t>(command.size()));
    Bytes response;
    if (result == TPM_SUCCESS) response.assign(buffer, buffer + size);
    TPM_Free(buffer);
    return response;
  };
}

Result<> Tpm::commit() {
  uncommitted_ = true;
  auto committed = slots_->commit(failed_tries_, store().blobs[0]);
  if (!committed) {
    if (!std::exchange(failing_, true)) log_line("commit: " + committed.error().context);
    return committed;
  }
  uncommitted_ = false;
  if (std::exchange(failing_, false)) log_line("commit: succeeds again");
  return {};
}

Result<> Tpm::commit_rest() {
  return uncommitted_ ? commit() : Result<>();
}

Result<Snapshot> Tpm::volatile_state() const {
  Snapshot snapshot;
  if (!started_) return snapshot;
  unsigned char* buffer = nullptr;
  std::uint32_t size = 0;
  const TPM_RESULT result = TPMLIB_VolatileAll_Store(&buffer, &size);
  if (result != TPM_SUCCESS) return libtpms_error("TPMLIB_VolatileAll_Store", result);
  snapshot.bytes.assign(buffer, buffer + size);
  OPENSSL_cleanse(buffer, size);
  TPM_Free(buffer);
  return snapshot;
}

// The TPM is powered off and on with the state that it had. Its random generator, which is a part of that,
// draws the same bytes again: this is no second TPM with the same stream, since nothing that was made of the
// first ones has left this process (the response is dropped, and the slot that was written is encrypted and
// withdrawn).
void Tpm::undo(const Snapshot& before) {
  Bytes permanent = std::move(*store().before);
  store().before.reset();
  TPMLIB_Terminate();
  const auto set = [](TPMLIB_StateType type, BytesView state) {
    return state.empty() ? TPM_SUCCESS
                         : TPMLIB_SetState(type, state.data(), static_cast<std::uint32_t>(state.size()));
  };
  wipe(store().blobs[0]);
  store().blobs[0] = std::move(permanent);
  // Permanent before volatile: libtpms checks the second with the first.
  if (set(TPMLIB_STATE_PERMANENT, store().blobs[0]) != TPM_SUCCESS ||
      set(TPMLIB_STATE_VOLATILE, before.bytes) != TPM_SUCCESS || TPMLIB_MainInit() != TPM_SUCCESS)
    fatal("a command whose commit failed cannot be undone");
  started_ = !before.bytes.empty();
  uncommitted_ = false;
}

BytesView Tpm::permanent_state() const noexcept {
  return store().blobs[0];
}

void Tpm::cancel() noexcept {
  (void)TPMLIB_CancelCommand();
}

void Tpm::power_off() noexcept {
  if (!powered_) return;
  TPMLIB_Terminate();
  powered_ = false;
  started_ = false;
}

}  // namespace vtpm::engine
