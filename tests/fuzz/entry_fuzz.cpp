// SPDX-License-Identifier: Apache-2.0
// Documents that are hashed: entries, launch documents and event logs. An accepted entry or launch document
// has one spelling.
#include <vtpm/log/entry.h>
#include <vtpm/log/event_log.h>

#include <cstdlib>

using namespace vtpm;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const BytesView input(bytes, size);
  const std::string_view text = as_text(input);
  if (const auto entry = log::parse_entry(input))
    if (log::serialize(*entry) != text) std::abort();
  if (const auto launch = log::parse_launch(text))
    if (log::launch_document(*launch) != text) std::abort();
  if (const auto events = log::EventLog::from_json(text)) {
    (void)events->replay();
    const auto again = log::EventLog::from_json(events->to_json());
    if (!again || again->events().size() != events->events().size()) std::abort();
  }
  return 0;
}
