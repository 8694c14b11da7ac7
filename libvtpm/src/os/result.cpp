// SPDX-License-Identifier: Apache-2.0
#include <vtpm/os/result.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace vtpm {
namespace {

struct ErrorRow {
  ErrorCode code;
  std::string_view name;
  int http;
  int exit;
};

// code, name, HTTP status, exit status
constexpr std::array kErrorTable = {
    ErrorRow{ErrorCode::Busy, "busy", 409, 4},
    ErrorRow{ErrorCode::Timeout, "timeout", 504, 4},
    ErrorRow{ErrorCode::Unavailable, "unavailable", 503, 4},
    ErrorRow{ErrorCode::Malformed, "malformed", 400, 2},
    ErrorRow{ErrorCode::NotFound, "not-found", 404, 4},
    ErrorRow{ErrorCode::Conflict, "conflict", 409, 4},
    ErrorRow{ErrorCode::PermissionDenied, "permission-denied", 403, 1},
    ErrorRow{ErrorCode::NotVerified, "not-verified", 422, 1},
    ErrorRow{ErrorCode::Unsupported, "unsupported", 501, 4},
    ErrorRow{ErrorCode::Configuration, "configuration", 500, 4},
    ErrorRow{ErrorCode::Unreachable, "unreachable", 502, 3},
    ErrorRow{ErrorCode::Exhausted, "exhausted", 507, 4},
    ErrorRow{ErrorCode::Corrupt, "corrupt", 500, 4},
    ErrorRow{ErrorCode::TpmFailure, "tpm-failure", 502, 4},
    ErrorRow{ErrorCode::Io, "io", 500, 4},
    ErrorRow{ErrorCode::Internal, "internal", 500, 4},
};

const ErrorRow& row(ErrorCode code) noexcept {
  for (const auto& r : kErrorTable)
    if (r.code == code) return r;
  return kErrorTable.back();
}

class Category final : public boost::system::error_category {
 public:
  const char* name() const noexcept override { return "vtpm"; }
  std::string message(int value) const override {
    return std::string(row(static_cast<ErrorCode>(value)).name);
  }
};

}  // namespace

boost::system::error_code make_error_code(ErrorCode code) noexcept {
  static const Category category;
  return {static_cast<int>(code), category};
}

Error Error::within(std::string_view prefix) const {
  return {kind(), std::string(prefix) + ": " + context};
}

Error errno_error(std::string_view what, int errno_value) {
  ErrorCode code = ErrorCode::Io;
  if (errno_value == ENOSPC || errno_value == EDQUOT) code = ErrorCode::Exhausted;
  if (errno_value == EACCES || errno_value == EPERM) code = ErrorCode::PermissionDenied;
  if (errno_value == ENOENT) code = ErrorCode::NotFound;
  return {code, std::string(what) + ": " + std::strerror(errno_value)};
}

std::string_view error_name(ErrorCode code) noexcept {
  return row(code).name;
}
int http_status(ErrorCode code) noexcept {
  return row(code).http;
}
int exit_status(ErrorCode code) noexcept {
  return row(code).exit;
}

void throw_exception_from_error(const Error&, const boost::source_location&) {
  std::abort();  // value() of a Result that holds an error is a bug
}

}  // namespace vtpm
