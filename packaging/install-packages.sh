#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages of packaging/debian-packages.txt that the named groups need and that are missing.
#
# usage: packaging/install-packages.sh GROUP...
#
# Says what it does. With everything installed it only asks dpkg: no root, no network, no time.
# Exit status: 0 all there, 2 usage, otherwise apt-get's.
set -euo pipefail

list=$(dirname -- "${BASH_SOURCE[0]}")/debian-packages.txt
known=$(sed -n 's/^\([a-z][a-z]*\) .*/\1/p' "$list" | sort -u | xargs)

usage() {
  echo "usage: packaging/install-packages.sh GROUP...   (groups: $known)" >&2
  exit 2
}

[ $# -gt 0 ] || usage
wanted=()
for group in "$@"; do
  case " $known " in
    *" $group "*) ;;
    *) echo "install-packages: no group '$group' in $list" >&2; usage ;;
  esac
  while read -r name package _; do
    if [ "$name" = "$group" ]; then wanted+=("$package"); fi
  done <"$list"
done

# dpkg-query fails when it does not know one of the names: that is an answer here, not an error.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p') || true
missing=()
for package in "${wanted[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all ${#wanted[@]} of $* are installed"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install-packages: not root and no sudo; as root, please run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600)
echo "packages: installing ${missing[*]}"
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${missing[@]}"
