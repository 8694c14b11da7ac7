// SPDX-License-Identifier: Apache-2.0
// Lists of u64 between vtpmd and an engine, which may be of different versions (a vtpmd takes over engines of
// an older or newer one): a list may grow at its end. What is missing is as it is by default, what is beyond
// the known ones is ignored.
#pragma once

#include <vtpm/os/bytes.h>
#include <vtpm/os/result.h>

#include <string>
#include <string_view>

namespace vtpm::ipc {

inline constexpr std::size_t kMaxU64List = 512;  // bytes, of all versions to come

// `fields`, a range of pointers to members of List, are its values in their order.
template <class List, class Fields>
Bytes encode_u64_list(const List& list, const Fields& fields) {
  Bytes out;
  for (const auto field : fields)
    put_be<std::uint64_t>(out, list.*field);
  return out;
}

// No list of u64, or too long: Malformed, and the text begins with `name`.
template <class List, class Fields>
Result<List> decode_u64_list(BytesView bytes, const Fields& fields, std::string_view name) {
  constexpr std::size_t kField = sizeof(std::uint64_t);
  if (bytes.size() % kField != 0 || bytes.size() > kMaxU64List)
    return Error(ErrorCode::Malformed, std::string(name) + ": of another size");
  List list;
  std::size_t at = 0;
  for (const auto field : fields) {
    if (at == bytes.size()) break;
    list.*field = get_be<std::uint64_t>(bytes, at);
    at += kField;
  }
  return list;
}

}  // namespace vtpm::ipc
