// SPDX-License-Identifier: Apache-2.0
// The event log of an instance: TCG Canonical Event Log (CEL), JSON encoding. It holds what the supervisor
// measured (PCR 17 and 18); a tenant's own extensions are the tenant's to record.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>
#include <vtpm/tpm/attest.h>

#include <optional>
#include <string>
#include <vector>

namespace vtpm::log {

using tpm::PcrValues;
using tpm::Sha256;

// content_type of the records that vtpmd writes.
inline constexpr std::string_view kLaunchContent = "vtpm.launch";  // content: the launch document, a text
inline constexpr std::string_view kStatementContent = "vtpm.statement";  // content: a description, a text

// The records of one instance, at most.
inline constexpr std::size_t kMaxEvents = 1024;

// One record: {"recnum", "pcr", "digests":[{"hashAlg":"sha256","digest"}], "content_type", "content"}.
struct Event {
  std::uint64_t recnum;
  unsigned pcr;
  Sha256 digest;
  std::string content_type;
  std::string content;
};

class EventLog {
 public:
  // Adds a record with the next recnum.
  void append(unsigned pcr, const Sha256& digest, std::string_view content_type, std::string content);
  const std::vector<Event>& events() const noexcept { return events_; }
  // The values of the PCRs in the log, each beginning at zeros (17-22 after a DRTM sequence, others after a
  // reset).
  PcrValues replay() const noexcept;

  // A JSON array.
  std::string to_json() const;
  // Strict; recnum must count from 0, to kMaxEvents - 1 at most. Malformed otherwise.
  static Result<EventLog> from_json(std::string_view json);

 private:
  std::vector<Event> events_;
};

// What was launched into an instance. The document is measured in PCR 17 at locality 4 before any tenant's
// command.
struct Launch {
  std::string instance;
  std::uint32_t owner;  // uid of the peer that claims the rest, as the host's user namespace numbers it
  std::optional<std::string> container;
  std::optional<std::string> image;   // "sha256:" + 64 hex digits
  std::optional<std::string> config;  // likewise
};
// Its exact bytes: a JSON object, members sorted, no white space.
std::string launch_document(const Launch& launch);
Result<Launch> parse_launch(std::string_view document);

}  // namespace vtpm::log
