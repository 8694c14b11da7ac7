// SPDX-License-Identifier: Apache-2.0
// The orders that the hostile engine obeys: the digest of a measurement that begins with kObey, a byte of
// these, and for Call the number of a system call and three arguments (u32, big-endian). A program whose name
// ends in "later-VERB-ORDER" has had that order from its start.
#pragma once

#include <cstdint>
#include <string_view>

namespace vtpm::test {

inline constexpr std::string_view kObey = "OBEY THIS:";

enum class Obey : std::uint8_t {
  Call,        // one system call
  Executable,  // memory that is writable and executable
  Memory,      // all the memory that it can have
  Log,         // the log, until that is full
  Flood,       // the control socket, until that is full
  WrongId,     // replies that are not the answer
  WrongVerb,
  NotReply,
  Oversize,
  NotFrame,
  Descriptors,  // a reply with descriptors
  TooMany,      // ... with more than a message may have
  Endless,      // a reply of ever more parts
  Silence,      // no reply
  Later,        // before the replies to a verb: the numbers are that verb and one of the above
};

}  // namespace vtpm::test
