// SPDX-License-Identifier: Apache-2.0
// How digests, PCR values, Names and texts are spelled in the project's JSON documents: one reader and one
// writer for the entries, the event log, evidence and policies.
#pragma once

#include "json/strict.h"
#include "json/text.h"

#include <vtpm/log/entry.h>
#include <vtpm/log/event_log.h>
#include <vtpm/tpm/attest.h>

namespace vtpm::log {

// {"0": hex, "17": hex}: by PCR index, decimal.
json::Value to_value(const tpm::PcrValues& values);
Result<tpm::PcrValues> pcr_values(const json::Item& item);
// "0" to "23", decimal without leading zeros. Malformed otherwise.
Result<unsigned> pcr_index(std::string_view text);

json::Value to_value(const tpm::Sha256& digest);
Result<tpm::Sha256> sha256(const json::Item& item);
Result<tpm::Sha256> sha256(json::Reader& reader, std::string_view name);

// A user of the host: 0 to 2^32-1.
Result<std::uint32_t> uid(const json::Item& item);
Result<std::uint32_t> uid(json::Reader& reader, std::string_view name);

// "tpm" or "embedded".
Result<AnchorKind> anchor_kind(const json::Item& item);

// The event log as an array of records.
json::Value to_value(const EventLog& log);

// The Name of an object with nameAlg SHA-256: 34 bytes, hexadecimal.
Result<Bytes> object_name(const json::Item& item);
Result<Bytes> object_name(json::Reader& reader, std::string_view name);

// Texts, and "sha256:" with 64 digits.
using json::content_digest;
using json::optional_content_digest;
using json::optional_plain_text;
using json::plain_text;

}  // namespace vtpm::log
