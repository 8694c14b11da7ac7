#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the release preset and measures the vTPM beside swtpm, in one run: command latency, create to first response,
# memory; managed beside raw node, two clients beside tpm2-abrmd, NV writes beside the disk. Needs root. Options are
# bench.py's: --json, --quick, --iterations N, --creations N, --instances N.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."

{
  packaging/install-packages.sh build test
  echo "building the release preset"
  cmake --preset release
  cmake --build --preset release -j "$(nproc)" --target vtpmd vtpm-engine vtpmctl bench_latency bench_clients
} >&2
exec python3 -B tests/bench/bench.py "$@" build/bin
