# SPDX-License-Identifier: Apache-2.0
# How every target of the project is compiled: C++20, warnings as errors, hardening, sanitizers.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
include(CheckPIESupported)
check_pie_supported()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

add_library(vtpm_compile INTERFACE)
target_compile_features(vtpm_compile INTERFACE cxx_std_20)
target_compile_definitions(vtpm_compile INTERFACE _GNU_SOURCE)
target_compile_options(vtpm_compile INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wold-style-cast
  -Woverloaded-virtual -Wformat=2 -Wundef -Werror
  -fstack-protector-strong -fcf-protection -ffunction-sections -fdata-sections)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # Wrong in gcc 12 once it inlines: an inlined coroutine frame's operator delete (Asio's awaitable), and the
  # inactive half of a variant (boost::system::result).
  target_compile_options(vtpm_compile INTERFACE -Wno-mismatched-new-delete -Wno-maybe-uninitialized)
endif()
target_link_options(vtpm_compile INTERFACE
  -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--gc-sections -Wl,--as-needed)

if(VTPM_SANITIZE OR VTPM_FUZZ)
  target_compile_options(vtpm_compile INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1)
  target_link_options(vtpm_compile INTERFACE -fsanitize=address,undefined)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # gcc 12 sees overflows in the sanitizers' own instrumentation of std::vector.
    target_compile_options(vtpm_compile INTERFACE -Wno-stringop-overflow -Wno-array-bounds)
  endif()
else()
  target_compile_options(vtpm_compile INTERFACE
    "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2;-ftrivial-auto-var-init=zero>")
endif()
if(VTPM_FUZZ)
  target_compile_options(vtpm_compile INTERFACE -fsanitize=fuzzer-no-link)
endif()
