#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the project and runs its tests, with all the set-up that a fresh Debian 12 machine needs.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh [--asan | --fuzz SECONDS | --lint | --help]

Without an option: installs the missing Debian packages (packaging/debian-packages.txt), builds the release preset into
build/ and runs every test. Ends with ctest's summary; the exit status is ctest's.

  --asan          build with AddressSanitizer and UndefinedBehaviorSanitizer, run the tests that exercise our own code
  --fuzz SECONDS  build the libFuzzer targets with clang, run each for SECONDS from its corpus; a crash fails
  --lint          clang-format and clang-tidy over the sources, and a syntax check of the scripts
  --help          this text

Tests that need root (mounts, containers) say so and count as skipped when run by another user.
TEXT
}

say() { printf '\n== %s\n' "$*"; }

jobs=$(nproc)

packages() { packaging/install-packages.sh "$@"; }

# build PRESET [CMAKE-OPTION...]
build() {
  local preset=$1
  shift
  say "configuring the $preset preset"
  cmake --preset "$preset" "$@" >/dev/null
  say "building it with $jobs jobs"
  cmake --build --preset "$preset" -j "$jobs"
}

run_all() {
  say "packages"
  packages build test
  build release
  say "running every test"
  ctest --preset release -j "$jobs"
}

# Run without AddressSanitizer only: what is about the tree, the clients (other people's programs), the second runtime,
# a guest's kernel, and the long rounds.
not_under_asan='^(arch_|bench_|install|integration_client_|integration_containers_crun|fault_kill_rounds|vm_)'

run_asan() {
  say "packages"
  packages build test
  build asan
  say "running the tests under AddressSanitizer and UndefinedBehaviorSanitizer, without $not_under_asan"
  export UBSAN_OPTIONS=print_stacktrace=1
  ctest --preset asan -j "$jobs" -E "$not_under_asan"
}

run_fuzz() {
  say "packages"
  packages build fuzz
  build fuzz -DVTPM_FUZZ_SECONDS="$1"
  say "fuzzing each target for $1 s (crashing inputs are kept in build-fuzz/tests/fuzz/artifacts)"
  ctest --preset fuzz -j "$jobs"
}

sources() { find libvtpm daemon cli container-hooks "$@" -name '*.cpp' | sort; }

# What includes Asio and Beast takes clang-tidy longer than all the rest together: it is left to gcc's warnings. Found
# by name, since a file gets Asio through headers of its own folder.
tidy_sources() {
  sources | grep -v -e '^daemon/supervisor/' -e '^libvtpm/src/control/http_client\.cpp$'
}

run_lint() {
  say "packages"
  packages build lint
  say "clang-format"
  find libvtpm daemon cli container-hooks tests examples -name '*.cpp' -o -name '*.h' | xargs clang-format --dry-run -Werror
  say "syntax of the scripts"
  grep -rlE '^#!/bin/(ba)?sh' .ci packaging tests examples | xargs -n 1 bash -n
  say "clang-tidy"
  # The debug preset: the release one has options that only gcc knows.
  cmake --preset debug >/dev/null
  # What is a warning for clang alone is not an error: gcc's build decides about warnings.
  tidy_sources | xargs -P "$jobs" -n 1 clang-tidy --quiet -p build-debug --extra-arg=-Wno-error --extra-arg=-w
  say "lint: nothing to say"
}

cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
case "${1-}" in
  "") run_all ;;
  --asan) run_asan ;;
  --fuzz)
    [[ "${2-}" =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }
    run_fuzz "$2"
    ;;
  --lint) run_lint ;;
  --help | -h) usage ;;
  *) usage >&2; exit 2 ;;
esac
