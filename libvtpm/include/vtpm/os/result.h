// SPDX-License-Identifier: Apache-2.0
// Result<T> and Error: how a host failure is reported.
//
// Three kinds of failure never mix: a host failure is a Result with an Error; a TPM response code is data; a
// bug aborts. One table (kErrorTable in result.cpp) maps each code to what the caller does about it, to an
// HTTP status and to the exit status of vtpmctl.
#pragma once

#include <boost/system/error_code.hpp>
#include <boost/system/result.hpp>

#include <string>
#include <string_view>
#include <utility>

namespace vtpm {

// Grouped by what the caller does about it.
enum class ErrorCode {
  // Retry, perhaps later.
  Busy = 1,     // somebody else has it now (a node with one opener, a TPM slot)
  Timeout,      // a peer did not answer in time
  Unavailable,  // the service exists but cannot serve now (shutting down, the anchor is being opened)
  // Correct the request.
  Malformed,         // bad syntax, a lying size, a missing or extra fd, a value out of range
  NotFound,          // no such instance, entry or file
  Conflict,          // the name or state is taken: it exists already, or is not in the needed state
  PermissionDenied,  // the peer's credentials do not allow it
  NotVerified,       // evidence or a policy was checked and refused
  // Correct the configuration or the machine.
  Unsupported,    // this kernel, TPM or build cannot do it
  Configuration,  // an option or a configuration file is wrong
  Unreachable,    // nobody listens at the daemon's socket
  // Call the operator.
  Exhausted,   // a limit, a quota, a full disk
  Corrupt,     // stored state is damaged; it was kept, and the context names the file
  TpmFailure,  // a TPM answered with a response code that must not happen here
  Io,          // a system call failed; the context has its name and errno
  // Report a bug.
  Internal,
};

boost::system::error_code make_error_code(ErrorCode code) noexcept;

// A host failure: what kind, and a sentence for a person that names the object concerned.
struct Error {
  boost::system::error_code code;
  std::string context;

  Error()
      : Error(ErrorCode::Internal, "no error") {}  // what boost's result returns from error() of a success
  Error(ErrorCode c, std::string text) : code(make_error_code(c)), context(std::move(text)) {}

  ErrorCode kind() const noexcept { return static_cast<ErrorCode>(code.value()); }
  // The same error, its context prefixed: "prefix: context".
  Error within(std::string_view prefix) const;
};

// An Io error from errno (given, since building `what` may change it): "what: strerror".
// ENOSPC and EDQUOT become Exhausted, EACCES and EPERM PermissionDenied, ENOENT NotFound.
Error errno_error(std::string_view what, int errno_value);

// "busy", "not-found", ...: stable names for logs and JSON (problem type).
std::string_view error_name(ErrorCode code) noexcept;
int http_status(ErrorCode code) noexcept;
// Exit status of vtpmctl: 1 refused, 2 usage, 3 daemon unreachable, 4 other.
int exit_status(ErrorCode code) noexcept;

template <class T = void>
class [[nodiscard]] Result : public boost::system::result<T, Error> {
 public:
  using boost::system::result<T, Error>::result;
};

[[noreturn]] void throw_exception_from_error(const Error& e, const boost::source_location& where);

}  // namespace vtpm

namespace boost::system {
template <>
struct is_error_code_enum<vtpm::ErrorCode> : std::true_type {};
}  // namespace boost::system

#define VTPM_CONCAT_(a, b) a##b
#define VTPM_CONCAT(a, b) VTPM_CONCAT_(a, b)

// VTPM_TRY(auto x, f()): the value of f(), or return its error. VTPM_TRY_VOID(f()): for Result<>.
// The CO_ forms are for coroutines.
#define VTPM_TRY_WITH_(ret, decl, expr)                                                                 \
  auto VTPM_CONCAT(vtpm_result_, __LINE__) = (expr);                                                    \
  if (!VTPM_CONCAT(vtpm_result_, __LINE__)) ret std::move(VTPM_CONCAT(vtpm_result_, __LINE__)).error(); \
  decl = std::move(*VTPM_CONCAT(vtpm_result_, __LINE__))
#define VTPM_TRY_VOID_WITH_(ret, expr) \
  if (auto vtpm_result_ = (expr); !vtpm_result_) ret std::move(vtpm_result_).error()
#define VTPM_TRY(decl, expr) VTPM_TRY_WITH_(return, decl, expr)
#define VTPM_TRY_VOID(expr) VTPM_TRY_VOID_WITH_(return, expr)
#define VTPM_CO_TRY(decl, expr) VTPM_TRY_WITH_(co_return, decl, expr)
#define VTPM_CO_TRY_VOID(expr) VTPM_TRY_VOID_WITH_(co_return, expr)
