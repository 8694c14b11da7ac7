#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The whole path on a real kernel with a kernel-driven TPM.

In a virtual machine vtpmd, an ordinary user, is anchored in /dev/tpmrm0 and a runc container uses its TPM; its evidence
is verified here, outside, where there is neither that TPM nor a daemon.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
BIN = os.environ["VTPM_BIN_DIR"]
VM_RUN = os.path.join(HERE, "vm-run")
ANNOTATION = {"dev.vtpm.enable": "true"}


def skip_without_vm():
    if os.uname().machine != "x86_64":
        skip("the guest is an x86-64 machine, with this machine's programs")
    prepared = subprocess.run([VM_RUN, "--prepare"], stderr=subprocess.PIPE, text=True)
    if prepared.returncode != 0:
        skip(prepared.stderr.strip())


def skip(reason):
    print("SKIPPED: " + reason)
    sys.exit(77)


def make_bundle(folder):
    """A runc bundle whose container sleeps, with the annotation and the hooks."""
    subprocess.run(["runc", "spec", "--bundle", folder], check=True)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["process"].update(terminal=False, args=["sleep", "600"], cwd="/")
    config["root"].update(path="rootfs", readonly=False)
    config["annotations"] = ANNOTATION
    # No poststop: that the container ended must be noticed without it.
    config["hooks"] = {"createRuntime": [{"path": "/srv/bin/vtpm-hook", "args": ["vtpm-hook", "createRuntime"],
                                          "env": ["VTPM_RUNTIME_DIR=/run/vtpm"], "timeout": 30}]}
    # The guest has cgroup v2 and no namespace of it to share; what this host's runc thinks of its own is no matter.
    config["linux"]["namespaces"] = [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    with open(path, "w") as f:
        json.dump(config, f)


def run_guest(work, out, nonce):
    srv = os.path.join(work, "srv")
    os.makedirs(os.path.join(srv, "bin"))
    os.makedirs(os.path.join(srv, "bundle"))
    for program in ("vtpmd", "vtpm-engine", "vtpm-hook", "vtpmctl"):
        shutil.copy(os.path.join(BIN, program), os.path.join(srv, "bin"))
        subprocess.run(["strip", "--strip-debug", os.path.join(srv, "bin", program)], check=True)
    shutil.copy(os.path.join(HERE, "guest.sh"), srv)
    make_bundle(os.path.join(srv, "bundle"))
    guest = subprocess.run([VM_RUN, "--timeout", "240", "--program", "jq", "--out", out, srv, "bash", "guest.sh", nonce])
    if guest.returncode != 0:
        sys.exit(f"FAILED: in the guest (exit status {guest.returncode})")


def vtpmctl(*args):
    # A runtime directory that does not exist: verifying needs no daemon.
    return subprocess.run([os.path.join(BIN, "vtpmctl"), "--runtime-dir", "/nonexistent", *args],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def expect(what, holds, detail=""):
    print(("ok      " if holds else "FAILED  ") + what)
    if not holds:
        sys.exit(detail)


def tampered(evidence):
    """The evidence with one byte of one base64 or hex member changed, for each such member: (name, document)."""
    def members(value, path):
        if isinstance(value, dict):
            for key in value:
                yield from members(value[key], path + [key])
        elif isinstance(value, list):
            for index in range(len(value)):
                yield from members(value[index], path + [index])
        elif isinstance(value, str) and len(value) >= 32:
            yield path

    for path in members(evidence, []):
        changed = json.loads(json.dumps(evidence))
        inner = changed
        for step in path[:-1]:
            inner = inner[step]
        text = inner[path[-1]]
        middle = len(text) // 2
        inner[path[-1]] = text[:middle] + ("0" if text[middle] != "0" else "1") + text[middle + 1:]
        yield ".".join(str(p) for p in path), changed


def verify_outside(work, out, nonce):
    evidence = os.path.join(out, "evidence.json")
    policy = os.path.join(work, "policy.json")
    written = subprocess.run([os.path.join(BIN, "vtpmctl"), "policy", "from-evidence", evidence], stdout=subprocess.PIPE)
    expect("a policy can be made from the evidence", written.returncode == 0)
    with open(policy, "wb") as f:
        f.write(written.stdout)
    pinned = json.loads(written.stdout)
    with open(os.path.join(out, "host-pcrs"), "rb") as f:
        hardware_pcr0 = f.read(32).hex()
    expect("the policy accepts no embedded anchor", pinned.get("allow_embedded_anchor") is not True)
    expect("the policy pins PCR 0 as the hardware TPM itself gives it", hardware_pcr0 in pinned["anchor_pcrs"]["0"])

    verdict = vtpmctl("verify", evidence, "--policy", policy, "--nonce", nonce)
    print(verdict.stdout)
    expect("the evidence verifies outside", verdict.returncode == 0 and "VERIFIED" in verdict.stdout, verdict.stdout)
    verdict = vtpmctl("verify", evidence, "--policy", policy, "--nonce", secrets.token_hex(32))
    expect("another nonce is refused", verdict.returncode == 1, verdict.stdout)

    with open(evidence) as f:
        original = json.load(f)
    changed = os.path.join(work, "tampered.json")
    count = 0
    for name, document in tampered(original):
        with open(changed, "w") as f:
            json.dump(document, f, separators=(",", ":"))
        verdict = vtpmctl("verify", changed, "--policy", policy, "--nonce", nonce)
        if verdict.returncode != 1:
            expect(f"evidence with a changed {name} is refused", False, verdict.stdout)
        count += 1
    expect(f"evidence with any of {count} members changed is refused", count > 5)


def check_guest_files(out):
    def content(name):
        with open(os.path.join(out, name), "rb") as f:
            return f.read()

    expect("the guest came to its end", content("done") == b"done\n")
    expect("the container has /dev/vtpm, /dev/tpmrm0 and /dev/tpm0", content("nodes").count(b"\n") == 3)
    expect("the container's TPM gives random bytes", len(content("random").strip()) == 32)
    container, host = content("container-pcrs"), content("host-pcrs")
    expect("PCR 0 and 17 were read in both TPMs", len(container) == 64 and len(host) == 64)
    expect("the container's PCR 17 holds its launch, the host's does not",
           container[32:] != host[32:] and container[32:] not in (b"\xff" * 32, bytes(32)))


def main():
    skip_without_vm()
    with tempfile.TemporaryDirectory(prefix="vtpm-vm-test-") as work:
        out = os.path.join(work, "out")
        nonce = secrets.token_hex(32)
        run_guest(work, out, nonce)
        check_guest_files(out)
        verify_outside(work, out, nonce)


main()
