# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that run in a container: an empty directory of its own, and failures that name their command.
set -Eeuo pipefail
trap 'echo "FAILED: $BASH_SOURCE line $LINENO: $BASH_COMMAND" >&2' ERR
work=$(mktemp -d)
cd "$work"

# refused TEXT COMMAND...: the command fails, and says TEXT.
refused() {
  local text=$1
  shift
  local status=0
  "$@" >refused.out 2>&1 || status=$?
  if [ $status -eq 0 ] || [ $status -ge 128 ]; then
    echo "FAILED: was not refused, but ended with $status: $*" >&2
    exit 1
  fi
  if ! grep -qi -- "$text" refused.out; then
    echo "FAILED: refused, but not with '$text': $*" >&2
    cat refused.out >&2
    exit 1
  fi
}

# (A pipe into `grep -q` would end the command early, and so fail.)
# said TEXT COMMAND...: the command succeeds, and says TEXT.
said() {
  local text=$1
  shift
  "$@" >said.out
  if ! grep -q -- "$text" said.out; then
    echo "FAILED: did not say '$text': $*" >&2
    cat said.out >&2
    exit 1
  fi
}
