#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole path, once, on this machine: two containers get their own TPM, and a verifier that has never seen them
# follows the chain from one of them back to the (stand-in) hardware TPM; then the same evidence, tampered with, is
# refused. Leaves nothing running and nothing mounted. Exit status 0 only if every step held.
set -euo pipefail

usage() {
    cat <<'TXT'
usage: examples/quickstart.sh [--hardware] [--keep] [--no-install]

  --hardware    anchor in this machine's /dev/tpmrm0 instead of a swtpm (creates one attestation key in it)
  --keep        keep the work directory (evidence, policy, logs) and print its path
  --no-install  do not install packages; fail if something is missing
TXT
}

hardware=no keep=no install=yes
for argument in "$@"; do
    case $argument in
        --hardware) hardware=yes ;;
        --keep) keep=yes ;;
        --no-install) install=no ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
done

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$source_dir/build/bin

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" != 0 ]; then
    fail "containers with runc need root here; please run: sudo $0 $*"
fi

# --- cleaning up, whatever happened ---------------------------------------------------------------
work=$(mktemp -d "${TMPDIR:-/tmp}/vtpm-quickstart.XXXXXX")
processes=()
containers=()

# Ends what this script started, newest first, by pid.
stop() {
    local pid=$1 n=0
    kill -TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

clean_up() {
    local status=$? i
    trap - EXIT INT TERM HUP
    set +e
    for i in "${containers[@]}"; do runc --root "$work/runc" delete --force "$i" >/dev/null 2>&1; done
    containers=()
    for ((i = ${#processes[@]} - 1; i >= 0; i--)); do stop "${processes[i]}"; done
    processes=()
    if [ "$status" != 0 ] && [ -s "$work/vtpmd.log" ]; then
        echo "quickstart: the last lines of vtpmd's log:" >&2
        tail -n 15 "$work/vtpmd.log" >&2
    fi
    if [ "$keep" = yes ]; then say "kept: $work"; else rm -rf --one-file-system "$work"; fi
    return "$status"
}
trap 'clean_up; exit $?' EXIT
trap 'exit 130' INT TERM HUP

# --- set-up ---------------------------------------------------------------------------------------
step "Packages and build"
if [ "$install" = yes ]; then "$source_dir/packaging/install-packages.sh" build test; fi
say "building the release preset in build/ (the first time takes some minutes)"
(cd "$source_dir" && cmake --preset release >"$work/build.log" 2>&1 &&
    cmake --build --preset release >>"$work/build.log" 2>&1) ||
    { tail -n 30 "$work/build.log" >&2; fail "the build failed"; }
say "built: $(cd "$bin" && echo vtpmd vtpm-engine vtpm-hook vtpmctl)"

# vtpmd is an ordinary user without capabilities; the number needs no account.
# Replaces the subshell that it is called in, so that the pid of a background call is that of the program.
daemon_uid=$((61000 + RANDOM % 1000))
as_daemon() {
    exec setpriv --reuid="$daemon_uid" --regid="$daemon_uid" --clear-groups --bounding-set=-all --inh-caps=-all \
        --no-new-privs -- "$@"
}
chmod 0755 "$work"
# Where another user can reach them: the clone may be in a directory that is closed to others.
mkdir "$work/bin"
install -m 0755 "$bin/vtpmd" "$bin/vtpm-engine" "$work/bin/"
mkdir -p "$work/state" "$work/run" "$work/tpm"
chown "$daemon_uid:$daemon_uid" "$work/state" "$work/run" "$work/tpm"
chmod 0700 "$work/state" "$work/tpm"


step "The hardware TPM"
if [ "$hardware" = yes ]; then
    [ -c /dev/tpmrm0 ] || fail "no /dev/tpmrm0 on this machine; run without --hardware"
    tcti=device:/dev/tpmrm0
    setfacl_group=$(stat -c %g /dev/tpmrm0)
    as_daemon() {
        exec setpriv --reuid="$daemon_uid" --regid="$daemon_uid" --groups="$setfacl_group" --bounding-set=-all \
            --inh-caps=-all --no-new-privs -- "$@"
    }
    say "using this machine's /dev/tpmrm0 (group $setfacl_group)"
else
    say "no real one asked for: a swtpm stands in, with a manufacturer's EK certificate from its own local CA"
    mkdir "$work/ca"
    chown "$daemon_uid:$daemon_uid" "$work/ca"
    cat >"$work/localca.conf" <<TXT
statedir = $work/ca
signingkey = $work/ca/signkey.pem
issuercert = $work/ca/issuercert.pem
certserial = $work/ca/certserial
TXT
    cat >"$work/localca.options" <<TXT
--platform-manufacturer Quickstart
--platform-version 1.0
--platform-model swtpm
TXT
    cat >"$work/setup.conf" <<TXT
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $work/localca.conf
create_certs_tool_options = $work/localca.options
active_pcr_banks = sha256
TXT
    (cd "$work" && as_daemon env HOME="$work/tpm" swtpm_setup --tpm2 --tpmstate "$work/tpm" --create-ek-cert \
        --create-platform-cert --lock-nvram --overwrite --config "$work/setup.conf" --logfile "$work/tpm/setup.log") \
        >"$work/setup.out" 2>&1 || { cat "$work/setup.out" "$work/tpm/setup.log" >&2; fail "swtpm_setup failed"; }
    as_daemon swtpm socket --tpm2 --tpmstate dir="$work/tpm" --flags startup-clear \
        --server type=unixio,path="$work/tpm/swtpm" --ctrl type=unixio,path="$work/tpm/swtpm.ctrl" \
        >"$work/swtpm.log" 2>&1 </dev/null &
    processes+=($!)
    tcti=swtpm:path=$work/tpm/swtpm
    for _ in $(seq 100); do [ -S "$work/tpm/swtpm.ctrl" ] && break; sleep 0.05; done
    [ -S "$work/tpm/swtpm.ctrl" ] || { cat "$work/swtpm.log" >&2; fail "swtpm did not start"; }
    say "swtpm runs as pid ${processes[-1]}"
fi

step "vtpmd, an ordinary user without capabilities (uid $daemon_uid)"
as_daemon "$work/bin/vtpmd" --state-dir "$work/state" --runtime-dir "$work/run" --anchor "$tcti" \
    >"$work/vtpmd.log" 2>&1 </dev/null &
processes+=($!)
vtpmd_pid=$!
vtpmctl() { "$bin/vtpmctl" --runtime-dir "$work/run" "$@"; }
for _ in $(seq 300); do
    vtpmctl anchor >/dev/null 2>&1 && break
    kill -0 "$vtpmd_pid" 2>/dev/null || { cat "$work/vtpmd.log" >&2; fail "vtpmd ended"; }
    sleep 0.1
done
vtpmctl anchor | sed 's/^/   /'

# --- containers -----------------------------------------------------------------------------------
step "Two containers, each asking for a TPM with the annotation dev.vtpm.enable=true"
"$source_dir/tests/support/make_rootfs.sh" "$work/rootfs" >"$work/rootfs.log" 2>&1 ||
    { cat "$work/rootfs.log" >&2; fail "could not make the root file system"; }
start_container() {
    "$source_dir/tests/support/make_bundle.py" "$work/$1" --rootfs "$work/rootfs" --hook "$bin/vtpm-hook" \
        --runtime-dir "$work/run" --annotation dev.vtpm.enable=true -- sleep 3600
    runc --root "$work/runc" run --detach --bundle "$work/$1" "$1" </dev/null >"$work/$1.log" 2>&1 ||
        { cat "$work/$1.log" >&2; fail "container $1 did not start"; }
    containers+=("$1")
}
inside() {
    local container=$1
    shift
    runc --root "$work/runc" exec "$container" "$@"
}
start_container alpha
start_container beta
vtpmctl list | sed 's/^/   /'
id_of() { vtpmctl --json list | jq -er --arg c "$1" '.instances[] | select(.container == $c and .state == "running") | .id'; }
alpha=$(id_of alpha) || fail "container alpha has no instance"
beta=$(id_of beta) || fail "container beta has no instance"

step "Inside alpha: unmodified tpm2-tools, no TCTI configured"
say "\$ ls -l /dev/vtpm /dev/tpmrm0 /dev/tpm0"
inside alpha ls -l /dev/vtpm /dev/tpmrm0 /dev/tpm0 | sed 's/^/     /'
tool() { say "\$ $*"; inside alpha "$@" >"$work/tool.out" 2>&1 || { cat "$work/tool.out" >&2; fail "$1 failed in alpha"; }; sed -n '1,4s/^/     /p' "$work/tool.out"; }
say "\$ tpm2_getrandom --hex 16"
random=$(inside alpha tpm2_getrandom --hex 16)
[ ${#random} = 32 ] || fail "tpm2_getrandom gave no 16 bytes"
say "  $random"
tool tpm2_pcrread sha256:16,17,18
tool tpm2_createprimary -C o -G ecc256 -c /tmp/primary.ctx
nonce=$(openssl rand -hex 16)
tool tpm2_quote -c 0x81020001 -l sha256:17,23 -q "$nonce" -m /tmp/quote.msg -s /tmp/quote.sig

step "Alpha and beta are two TPMs"
ek_of() { inside "$1" tpm2_readpublic -Q -c 0x81010001 -n /tmp/ek.name && inside "$1" od -An -v -tx1 /tmp/ek.name | tr -d ' \n'; }
ek_alpha=$(ek_of alpha)
ek_beta=$(ek_of beta)
[ -n "$ek_alpha" ] && [ "$ek_alpha" != "$ek_beta" ] || fail "the containers have the same EK"
say "EK of alpha: $ek_alpha"
say "EK of beta:  $ek_beta"
secret=$(openssl rand -hex 32)
inside alpha tpm2_pcrextend "23:sha256=$secret"
pcr23() { inside "$1" tpm2_pcrread sha256:23 | tr 'A-F' 'a-f' | sed -n 's/.*0x\([0-9a-f]\{64\}\)$/\1/p'; }
alpha23=$(pcr23 alpha) beta23=$(pcr23 beta)
zeros=$(printf '0%.0s' $(seq 64))
[ -n "$alpha23" ] && [ "$alpha23" != "$zeros" ] || fail "alpha's PCR 23 was not extended"
[ "$beta23" = "$zeros" ] || fail "beta sees alpha's PCR 23"
say "alpha extended its PCR 23 to ${alpha23:0:16}...; in beta it is still zeros"
inside alpha tpm2_pcrextend "17:sha256=$secret" >/dev/null 2>&1 && fail "a tenant extended PCR 17"
say "alpha may not extend PCR 17, which holds its launch: the TPM refused"

# --- the relying party ----------------------------------------------------------------------------
step "The relying party: a policy that pins this machine, then fresh evidence about alpha"
vtpmctl attest "$beta" --nonce "$(openssl rand -hex 16)" -o "$work/known-good.json"
vtpmctl policy from-evidence "$work/known-good.json" >"$work/policy.json"
say "policy.json: accepts this machine's attestation key, its hardware PCRs and its binaries"
nonce=$(openssl rand -hex 16)
vtpmctl attest "$alpha" --nonce "$nonce" --fresh -o "$work/evidence.json"
say "evidence.json: $(stat -c %s "$work/evidence.json") bytes for nonce $nonce"
say ""
"$bin/vtpmctl" verify "$work/evidence.json" --policy "$work/policy.json" --nonce "$nonce" | tee "$work/verdict" | sed 's/^/   /'
grep -qx 'verdict: VERIFIED' "$work/verdict" || fail "the evidence was not verified"

step "The same evidence, tampered with"
refused() {
    local what=$1 status=0
    shift
    "$bin/vtpmctl" verify "$@" >"$work/refusal" 2>&1 || status=$?
    [ "$status" = 1 ] || { cat "$work/refusal" >&2; fail "$what: exit status $status, not 1"; }
    say "$what:"
    grep '^FAIL' "$work/refusal" | head -n 2 | sed 's/^/     /'
}
jq -c --arg v "$secret" '.vtpm.pcrs["23"] = $v' "$work/evidence.json" >"$work/other-pcr.json"
refused "another value of PCR 23" "$work/other-pcr.json" --policy "$work/policy.json" --nonce "$nonce"
jq -c '.epoch.time += 1' "$work/evidence.json" >"$work/other-time.json"
refused "an epoch one millisecond younger" "$work/other-time.json" --policy "$work/policy.json" --nonce "$nonce"
jq -c --slurpfile b "$work/known-good.json" '.instance_create = $b[0].instance_create' "$work/evidence.json" \
    >"$work/spliced.json"
refused "beta's entry of the log under alpha's quote" "$work/spliced.json" --policy "$work/policy.json" --nonce "$nonce"
refused "an old answer to a new nonce" "$work/evidence.json" --policy "$work/policy.json" --nonce "$(openssl rand -hex 16)"

step "Nothing is left behind"
runc --root "$work/runc" delete --force alpha
containers=(beta)
for _ in $(seq 100); do id_of alpha >/dev/null 2>&1 || break; sleep 0.05; done
id_of alpha >/dev/null 2>&1 && fail "alpha's TPM outlived its container"
say "alpha's TPM ended with its container"
clean_up
grep -qF "$work" /proc/self/mountinfo && fail "a mount was left behind in $work"
# Ours were copies in the work directory; swtpm has it on its command line. The zygote ends a moment after vtpmd.
left_running() {
    local program
    for program in /proc/[0-9]*/exe; do
        case $(readlink "$program" 2>/dev/null) in "$work"/*) return 0 ;; esac
    done
    grep -qsF "$work" /proc/[0-9]*/cmdline
}
for _ in $(seq 100); do left_running || break; sleep 0.05; done
left_running && fail "a process was left behind"
say "vtpmd and the stand-in are stopped; nothing is mounted"
echo
echo "verdict: VERIFIED"
