// SPDX-License-Identifier: Apache-2.0
// The anchor's attestation key in its TPM.
//
// It is a primary of the endorsement hierarchy: keys of the owner hierarchy quote obfuscated reset counts and
// firmware versions (Part 3, Attestation Commands, introduction). Its template has a random unique that is
// kept nowhere, so that nobody who may use the hierarchy can derive the same key with an auth value of his
// own.
#pragma once

#include "daemon/anchor/record.h"
#include "daemon/tss/object.h"

namespace vtpm::anchor {

// Where the key may be: the first free handle is taken, others' objects are never touched. Within the
// owner's range of the TCG's registry for endorsement keys, away from the handles that the registry assigns.
inline constexpr std::uint32_t kFirstHandle = 0x81010100;
inline constexpr std::uint32_t kLastHandle = 0x810101ff;
// Of the key's auth value, bytes.
inline constexpr std::size_t kAuthSize = 32;

// The first handle of the range that nobody has. None: Exhausted.
Result<std::uint32_t> free_handle(tss::Esys& esys);

// Makes the key, with a random auth value, and persists it. ownerAuth or endorsementAuth set: Configuration.
// No free handle or NV space: Exhausted.
Result<Record> create_key(tss::Esys& esys, log::AnchorKind kind);

// The key of the record, ready to sign. Not there or another: Corrupt, with what to do.
Result<tss::Object> open_key(tss::Esys& esys, const Record& record, const std::string& state_dir);

}  // namespace vtpm::anchor
