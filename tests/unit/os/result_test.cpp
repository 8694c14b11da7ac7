// SPDX-License-Identifier: Apache-2.0
#include "tests/support/catch_result.h"

#include <cerrno>
#include <set>

using namespace vtpm;

namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error(ErrorCode::Malformed, "odd");
  return value / 2;
}

Result<int> quarter(int value) {
  VTPM_TRY(const int first, half(value));
  VTPM_TRY(const int second, half(first));
  return second;
}

Result<> check(int value) {
  VTPM_TRY_VOID(quarter(value));
  return {};
}

}  // namespace

TEST_CASE("result: the first error is returned with its context") {
  CHECK(quarter(8).value() == 2);
  CHECK(quarter(6).error().context == "odd");
  CHECK(check(4));
  CHECK(check(5).error().kind() == ErrorCode::Malformed);
  CHECK(check(5).error().within("a: b").context == "a: b: odd");
}

TEST_CASE("errno: what the caller can do decides the code") {
  CHECK(errno_error("f", ENOENT).kind() == ErrorCode::NotFound);
  CHECK(errno_error("f", EACCES).kind() == ErrorCode::PermissionDenied);
  CHECK(errno_error("f", EPERM).kind() == ErrorCode::PermissionDenied);
  CHECK(errno_error("f", ENOSPC).kind() == ErrorCode::Exhausted);
  CHECK(errno_error("f", EDQUOT).kind() == ErrorCode::Exhausted);
  CHECK(errno_error("f", EIO).kind() == ErrorCode::Io);
  CHECK(errno_error("f", ENOENT).context == "f: No such file or directory");
}

TEST_CASE("error table: each code has a name of its own and statuses in their ranges") {
  std::set<std::string_view> names;
  for (int code = static_cast<int>(ErrorCode::Busy); code <= static_cast<int>(ErrorCode::Internal); ++code) {
    const auto kind = static_cast<ErrorCode>(code);
    CHECK(names.insert(error_name(kind)).second);
    CHECK(http_status(kind) >= 400);
    CHECK(http_status(kind) < 600);
    CHECK(exit_status(kind) >= 1);
    CHECK(exit_status(kind) <= 4);
    CHECK(make_error_code(kind).message() == error_name(kind));
  }
}
