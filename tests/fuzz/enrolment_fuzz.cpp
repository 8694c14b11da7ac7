// SPDX-License-Identifier: Apache-2.0
// The documents of an enrolment. The input is tried as each of them; what is accepted is written and read as
// the same.
#include <vtpm/evidence/enrolment.h>

#include <cstdlib>

using namespace vtpm;
using namespace vtpm::evidence;

namespace {

template <class T>
void read_and_write(std::string_view text, Result<T> (*parse)(std::string_view)) {
  const auto document = parse(text);
  if (!document) return;
  const std::string json = to_json(*document);
  const auto again = parse(json);
  if (!again || to_json(*again) != json) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  return ::setenv("TSS2_LOG", "all+none", 1);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const BytesView input(bytes, size);
  const std::string_view text = as_text(input);
  read_and_write(text, parse_enrolment_request);
  read_and_write(text, parse_enrolment_challenge);
  read_and_write(text, parse_enrolment_answer);
  read_and_write(text, parse_pending_enrolment);
  read_and_write(text, parse_signed_enrolment);
  (void)read_enrolment({Bytes(input.begin(), input.end()), {}});
  // A host's request is the first that a verifier reads of it.
  if (const auto request = parse_enrolment_request(text)) (void)begin_enrolment(*request, {}, 0);
  return 0;
}
