// SPDX-License-Identifier: Apache-2.0
// The way back from an error's name in a message to its code.
#pragma once

#include <vtpm/os/result.h>

#include <optional>

namespace vtpm::control {

// The code that error_name() calls `name`.
inline std::optional<ErrorCode> error_code_from(std::string_view name) noexcept {
  for (int value = static_cast<int>(ErrorCode::Busy); value <= static_cast<int>(ErrorCode::Internal);
       ++value) {
    const auto code = static_cast<ErrorCode>(value);
    if (error_name(code) == name) return code;
  }
  return std::nullopt;
}

}  // namespace vtpm::control
