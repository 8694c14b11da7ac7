// SPDX-License-Identifier: Apache-2.0
// Objects in a TPM, held so that none stays in its slots.
#pragma once

#include "daemon/tss/esys.h"

#include <vtpm/os/secret.h>

#include <optional>
#include <variant>

namespace vtpm::tss {

// An ESYS reference to an object. A transient object is flushed on destruction; of a persistent one only
// ESYS' reference is closed. Must not outlive its Esys.
class Object {
 public:
  enum class Kind { Transient, Persistent };
  Object(Esys& esys, ESYS_TR handle, Kind kind) noexcept : esys_(&esys), handle_(handle), kind_(kind) {}
  Object(Object&& other) noexcept
      : esys_(other.esys_), handle_(std::exchange(other.handle_, ESYS_TR_NONE)), kind_(other.kind_) {}
  Object& operator=(Object&& other) noexcept;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  ~Object() { release(); }

  ESYS_TR handle() const noexcept { return handle_; }

 private:
  void release() noexcept;
  Esys* esys_;
  ESYS_TR handle_;
  Kind kind_;
};

// A TPM2B_SENSITIVE_CREATE that does not leave its secrets on the stack.
struct SensitiveCreate {
  TPM2B_SENSITIVE_CREATE value{};
  SensitiveCreate() = default;
  SensitiveCreate(const SensitiveCreate&) = delete;
  SensitiveCreate& operator=(const SensitiveCreate&) = delete;
  ~SensitiveCreate();
};

struct CreatedPrimary {
  Object object;      // transient
  Bytes public_area;  // TPMT_PUBLIC
};

// A response code that the caller asked to see instead of an Error. Never a busy one.
struct Refused {
  TSS2_RC code;
};

// TPM2_CreatePrimary in a hierarchy (ESYS_TR_RH_*) whose auth is empty; `auth` is the new object's userAuth.
Result<CreatedPrimary> create_primary(Esys& esys, ESYS_TR hierarchy, const TPMT_PUBLIC& public_template,
                                      BytesView auth = {});
// The same, with the TPM's refusal as a value.
Result<std::variant<CreatedPrimary, Refused>> try_create_primary(Esys& esys, ESYS_TR hierarchy,
                                                                 const TPMT_PUBLIC& public_template,
                                                                 BytesView auth = {});

// TPM2_EvictControl by an empty ownerAuth: makes a transient object persistent at `handle`.
Result<> persist(Esys& esys, const Object& object, TPM2_HANDLE handle);
// TPM2_EvictControl by an empty ownerAuth: removes the persistent object at `handle`.
Result<> evict(Esys& esys, TPM2_HANDLE handle);

// An object that is in the TPM already, persistent or NV index. Nothing is there (TPM_RC_HANDLE and the
// like): nullopt.
Result<std::optional<Object>> find(Esys& esys, TPM2_HANDLE handle);
// Its TPMT_PUBLIC (TPM2_ReadPublic).
Result<Bytes> read_public(Esys& esys, const Object& object);
// Its Name, as ESYS knows it: nothing is sent.
Result<Bytes> name_of(Esys& esys, const Object& object);
// The userAuth for the commands that follow.
Result<> set_auth(Esys& esys, const Object& object, BytesView auth);

}  // namespace vtpm::tss
