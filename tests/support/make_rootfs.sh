#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make_rootfs.sh DIR: a small root file system for containers: busybox, and this machine's tpm2-tools with all the
# libraries that they need, and no configuration for them.
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
root=$1
for program in busybox tpm2 ldd; do
    command -v "$program" >/dev/null || { echo "$0: $program is not installed (see packaging/debian-packages.txt)" >&2; exit 1; }
done

mkdir -p "$root"/{bin,sbin,dev,etc,proc,sys,tmp,run,usr/bin,usr/sbin}
chmod 755 "$root"
chmod 1777 "$root/tmp"
echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
echo 'root:x:0:' > "$root/etc/group"

busybox=$(command -v busybox)
if ldd "$busybox" >/dev/null 2>&1; then
    echo "$0: $busybox is not the static one: install busybox-static" >&2
    exit 1
fi
cp "$busybox" "$root/bin/busybox"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done

# Copies a program or library and what the dynamic loader needs for it, to the same paths.
copy_with_libraries() {
    local file=$1 library
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
    ldd "$file" | grep -o '/[^ )]*' | while read -r library; do
        [ -e "$root$library" ] && continue
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
}

copy_with_libraries "$(readlink -f "$(command -v tpm2)")"
tpm2=$(readlink -f "$(command -v tpm2)")
for link in /usr/bin/tpm2_*; do
    ln -sf "$tpm2" "$root/usr/bin/$(basename "$link")"
done

# tpm2-tss loads its TCTIs by name; it tries /dev/tpmrm0 and /dev/tpm0 when none is configured.
found=no
for tcti in /usr/lib/*/libtss2-tcti-*.so.0; do
    [ -e "$tcti" ] || continue
    copy_with_libraries "$tcti"
    found=yes
done
[ $found = yes ] || { echo "$0: no libtss2-tcti-*.so.0 (install libtss2-tcti-device0)" >&2; exit 1; }
