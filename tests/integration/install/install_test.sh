#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` lays down: every program, and a library that another project can build against, by CMake's
# package and by pkg-config.  usage: install_test.sh BUILD_DIR
set -euo pipefail
build=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >"$work/log" || { cat "$work/log"; exit 1; }
for file in bin/vtpmd bin/vtpmctl libexec/vtpm/vtpm-engine libexec/vtpm/vtpm-hook; do
    [ -x "$work/usr/$file" ] || { echo "not installed: $file"; exit 1; }
done
"$work/usr/bin/vtpmctl" --help >/dev/null
PKG_CONFIG_PATH=$(dirname "$(find "$work" -name libvtpm.pc)")
export PKG_CONFIG_PATH
# Sanitizer builds need their run-time library in whoever links them.
flags=()
if grep -q '^VTPM_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then flags=(-fsanitize=address,undefined); fi
# shellcheck disable=SC2046
g++ "${flags[@]}" "$here/consumer.cpp" -o "$work/by-pkg-config" $(pkg-config --cflags --libs libvtpm)
"$work/by-pkg-config"
cat >"$work/CMakeLists.txt" <<TXT
cmake_minimum_required(VERSION 3.25)
project(consumer CXX)
find_package(vtpm REQUIRED)
add_executable(consumer $here/consumer.cpp)
target_link_libraries(consumer vtpm::vtpm)
TXT
cmake -S "$work" -B "$work/b" -DCMAKE_PREFIX_PATH="$work/usr" -DCMAKE_CXX_FLAGS="${flags[*]}" >"$work/log" 2>&1 &&
    cmake --build "$work/b" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/b/consumer"
echo "installed programs run, and libvtpm links by both ways"
