#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs as root in the guest, in /srv: bin/ (the programs) and bundle/ (a container's config.json) are beside it. Leaves in
# /out what the host then checks. Any command that fails ends it; its trace is in the test's output.
set -euxo pipefail

nonce=$1
uid=990
tpm_group=101
export PATH=/srv/bin:$PATH VTPM_RUNTIME_DIR=/run/vtpm

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}

# An ordinary user, who may open the TPM's resource-managed node and nothing else.
chgrp $tpm_group /dev/tpmrm0
chmod 660 /dev/tpmrm0
install -d -o $uid -g $uid -m 755 /run/vtpm
install -d -o $uid -g $uid -m 700 /var/lib/vtpm
setpriv --reuid=$uid --regid=$uid --groups=$tpm_group --inh-caps=-all --bounding-set=-all --no-new-privs \
  vtpmd --state-dir /var/lib/vtpm --runtime-dir /run/vtpm --anchor device:/dev/tpmrm0 2>/out/vtpmd.log &
daemon=$!
trap 'cat /out/vtpmd.log >&2' ERR
wait_for 60 test -S /run/vtpm/vtpmd.sock
grep -E "^Uid:\s$uid\s$uid\s$uid\s$uid" /proc/$daemon/status
grep -E '^CapEff:\s0+$' /proc/$daemon/status
vtpmctl anchor

# A container on an overlay of the guest's own files.
mkdir -p /run/container /srv/bundle/rootfs
mount -t tmpfs tmpfs /run/container
mkdir /run/container/upper /run/container/work
mount -t overlay -o lowerdir=/,upperdir=/run/container/upper,workdir=/run/container/work overlay /srv/bundle/rootfs
runc run --detach --bundle /srv/bundle tenant </dev/null >/out/runc.log 2>&1 || { cat /out/runc.log >&2; false; }

# The tenant's tools find their TPM with no configuration; the container has no other.
inside() { runc exec --env TPM2TOOLS_TCTI= tenant "$@"; }
inside ls -l /dev/vtpm /dev/tpmrm0 /dev/tpm0 >/out/nodes
inside tpm2_getrandom --hex 16 >/out/random
inside tpm2_pcrread -Q -o /tmp/pcrs sha256:0,17
inside tpm2_readpublic -Q -c 0x81020001 -f pem -o /tmp/ak.pem
inside tpm2_quote -Q -c 0x81020001 -l sha256:0,17 -q "$nonce" -m /tmp/quote -s /tmp/signature
inside tpm2_checkquote -Q -u /tmp/ak.pem -m /tmp/quote -s /tmp/signature -q "$nonce"
cp /srv/bundle/rootfs/tmp/pcrs /out/container-pcrs
# Each has a TPM of its own: the host's has another PCR 17.
tpm2_pcrread -Q -T device:/dev/tpmrm0 -o /out/host-pcrs sha256:0,17

id=$(vtpmctl --json list | jq -r 'first(.. | objects | .id? // empty)')
vtpmctl inspect "$id"
vtpmctl attest "$id" --nonce "$nonce" --fresh -o /out/evidence.json

# The instance goes with its container, though nothing but the container's end says so.
runc kill tenant KILL
gone() { ! vtpmctl inspect "$id" >/dev/null 2>&1 || vtpmctl --json inspect "$id" | grep -q '"destroyed"'; }
wait_for 30 gone
runc delete --force tenant

# Nothing of ours is left in the hardware TPM but its persistent key.
test -z "$(tpm2_getcap -T device:/dev/tpm0 handles-transient)"
test -z "$(tpm2_getcap -T device:/dev/tpm0 handles-loaded-session)"

kill -TERM $daemon
wait $daemon
echo done >/out/done
