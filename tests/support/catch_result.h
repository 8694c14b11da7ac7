// SPDX-License-Identifier: Apache-2.0
// Catch2, and how it prints a Result: a failed check shows the error.
#pragma once

#include <vtpm/os/result.h>

#include <catch2/catch.hpp>

namespace Catch {

template <class T>
struct StringMaker<vtpm::Result<T>> {
  static std::string convert(const vtpm::Result<T>& result) {
    return result ? "a value" : "error: " + result.error().context;
  }
};

}  // namespace Catch
