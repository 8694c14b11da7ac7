# SPDX-License-Identifier: Apache-2.0
"""The TPMs that are compared: a swtpm, brought to the state in which a vTPM is handed over, and the nodes of vTPMs."""

import os
import secrets
import shutil
import socket
import subprocess
import time

import tpm2
from tpm2 import ALG, b2, u16, u32

EK, SRK, AK = 0x81010001, 0x81000001, 0x81020001
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
OWN_KEY = 0x02 | 0x10 | 0x20 | 0x10000  # fixedTPM, fixedParent, sensitiveDataOrigin, restricted


def ecc(attributes, policy, symmetric, scheme, x):
    return (u16(ALG["ecc"]) + u16(ALG["sha256"]) + u32(attributes) + b2(policy) + symmetric + scheme + u16(3) +
            u16(ALG["null"]) + b2(x) + b2(bytes(32)))


AES = u16(ALG["aes"]) + u16(128) + u16(ALG["cfb"])
NONE = u16(ALG["null"])
# As daemon/identity/templates.cpp: hierarchy, handle, template.
KEYS = [
    (tpm2.ENDORSEMENT, EK, ecc(OWN_KEY | 0x20000 | 0x80, POLICY_A, AES, NONE, bytes(32))),
    (tpm2.OWNER, SRK, ecc(OWN_KEY | 0x20000 | 0x40 | 0x400, b"", AES, NONE, bytes(32))),
    (tpm2.ENDORSEMENT, AK, ecc(OWN_KEY | 0x40000 | 0x40 | 0x400, b"", NONE, u16(ALG["ecdsa"]) + u16(ALG["sha256"]),
                               tpm2.digest(ALG["sha256"], b"vtpm instance AK v1"))),
]


def run(endpoint, code, handles=(), params=b"", authorizations=()):
    data = tpm2.command(code, [(h, b"") for h in handles], params, authorizations)
    response = tpm2.Response(endpoint.transceive(data), code, authorizations)
    if response.rc != 0:
        raise AssertionError(f"{tpm2.NAMES[code]} of the provisioning: 0x{response.rc:x}")
    return response


class Swtpm:
    """A swtpm as a bare TPM: what it answers is libtpms' word."""

    name = "swtpm"

    def __init__(self, directory):
        self.directory = directory
        os.mkdir(directory)
        paths = [os.path.join(directory, name) for name in ("data", "control")]
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "swtpm", "socket", "--tpm2", "--server", "type=unixio,path=" + paths[0], "--ctrl",
             "type=unixio,path=" + paths[1], "--tpmstate", "dir=" + directory, "--flags", "not-need-init"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connections = []
        try:
            self.data, self.control = [self.connect(path) for path in paths]
            self.provision()
        except BaseException:
            self.close()
            raise

    def connect(self, path):
        connection = socket.socket(socket.AF_UNIX)
        self.connections.append(connection)
        end = time.monotonic() + 60
        while connection.connect_ex(path) != 0:
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("swtpm does not serve")
            time.sleep(0.001)
        return connection

    def transceive(self, data):
        return Stream(self.data).transceive(data)

    def order(self, number, payload=b""):
        self.control.sendall(u32(number) + payload)
        if self.control.recv(4096)[:4] != bytes(4):
            raise AssertionError(f"swtpm refuses control command {number}")

    def provision(self):
        """What daemon/identity/provision.cpp does with a new TPM."""
        run(self, tpm2.CC["Startup"], params=u16(0))
        password = [tpm2.Authorization()]
        banks = u32(4) + b"".join(u16(ALG[name]) + b"\3" + (b"\xff" * 3 if name == "sha256" else bytes(3))
                                  for name in ("sha1", "sha256", "sha384", "sha512"))
        run(self, tpm2.CC["PCR_Allocate"], [tpm2.PLATFORM], banks, password)
        run(self, tpm2.CC["Shutdown"], params=u16(0))
        self.order(2, u32(0))  # INIT: a power cycle
        run(self, tpm2.CC["Startup"], params=u16(0))
        for hierarchy, handle, template in KEYS:
            parameters = b2(b2(b"") + b2(b"")) + b2(template) + b2(b"") + u32(0)
            made = run(self, tpm2.CC["CreatePrimary"], [hierarchy], parameters, password).handle
            run(self, tpm2.CC["EvictControl"], [tpm2.OWNER, made], u32(handle), password)
            run(self, tpm2.CC["FlushContext"], params=u32(made))
        # daemon/identity/provision.h: tries, recovery time, lockout recovery
        run(self, tpm2.CC["DictionaryAttackParameters"], [tpm2.LOCKOUT], u32(32) + u32(600) + u32(1000), password)
        launch = b"a launch"
        self.order(6)  # HASH_START
        self.order(7, u32(len(launch)) + launch)  # HASH_DATA
        self.order(8)  # HASH_END
        run(self, tpm2.CC["HierarchyChangeAuth"], [tpm2.PLATFORM], b2(secrets.token_bytes(32)), password)

    def close(self):
        for connection in self.connections:
            connection.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Neighbour:
    """Another client of a managed node, which takes all of the TPM's slots again and again: contexts have to move."""

    EVERY = 3  # commands of the stream

    def __init__(self, node):
        self.node, self.count, self.held = node, 0, []

    def work(self):
        self.count += 1
        if self.count % self.EVERY:
            return
        while len(self.held) > 5:
            run(self.node, tpm2.CC["FlushContext"], params=u32(self.held.pop(0)))
        password = [tpm2.Authorization()]
        sequence = run(self.node, tpm2.CC["HashSequenceStart"], params=b2(b"") + u16(ALG["sha256"])).handle
        session = run(self.node, tpm2.CC["StartAuthSession"], [tpm2.NULL, tpm2.NULL],
                      b2(bytes(16)) + b2(b"") + b"\1" + NONE + u16(ALG["sha256"])).handle
        self.held += [sequence, session]
        for handle in self.held:  # each of them has to be in the TPM for this
            if handle >> 24 == 0x80:
                run(self.node, tpm2.CC["SequenceUpdate"], [handle], b2(b"x"), password)
            else:
                run(self.node, tpm2.CC["PolicyGetDigest"], [handle])


class Space:
    """The library's resource manager over a swtpm of its own, without an engine."""

    raw = False

    def __init__(self, program, directory, neighbour=False):
        self.name = "resource manager" + (" beside a busy client" if neighbour else "")
        self.tpm, self.connections, self.process = Swtpm(directory), [], None
        self.path = os.path.join(directory, "space")
        try:
            self.tpm.data.close()  # it serves one connection at a time
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", program, os.path.join(directory, "data"), self.path],
                                            stdin=subprocess.DEVNULL)
            self.node = self.open()
        except BaseException:
            self.close()
            raise
        self.transceive = self.node.transceive
        if neighbour:
            self.neighbour = Neighbour(self.open())
            self.transceive = self.disturbed

    def disturbed(self, data):
        self.neighbour.work()
        return self.node.transceive(data)

    def open(self):
        end = time.monotonic() + 60
        while True:
            connection = socket.socket(socket.AF_UNIX)
            self.connections.append(connection)
            if connection.connect_ex(self.path) == 0:
                return Stream(connection)
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("space_server does not serve")
            time.sleep(0.001)

    def close(self):
        for connection in self.connections:
            connection.close()
        if self.process:
            self.process.kill()
            self.process.wait()
        self.tpm.close()


class Stream:
    """A TPM behind a stream socket."""

    def __init__(self, connection):
        self.connection = connection

    def transceive(self, data):
        self.connection.sendall(data)
        answer = self.connection.recv(8192)
        while len(answer) < 10 or len(answer) < int.from_bytes(answer[2:6], "big"):
            part = self.connection.recv(8192)
            if not part:
                raise AssertionError("the TPM is gone")
            answer += part
        return answer


class Vtpm:
    """An instance of its own with one node."""

    def __init__(self, host, directory, raw, neighbour=False, durable=False):
        self.host, self.raw, self.name = host, raw, "raw node" if raw else "managed node"
        self.name += " of a durable TPM" if durable else ""
        self.instance = self.ctl("create", *(["--durable", "--name", "differential"] if durable else []))
        self.path = os.path.join(directory, "node-" + self.instance)
        self.opened = []
        try:
            self.ctl("attach", self.instance, "--path", self.path, *(["--raw"] if raw else []))
            self.node = self.open()
        except BaseException:
            self.close()
            raise
        self.transceive = self.node.transceive
        self.neighbour = None
        if neighbour:
            self.neighbour = Neighbour(self.open())
            self.transceive = self.disturbed
            self.name = "managed node beside a busy one"

    def disturbed(self, data):
        self.neighbour.work()
        return self.node.transceive(data)

    def open(self):
        self.opened.append(tpm2.Node(self.path))
        return self.opened[-1]

    def ctl(self, *arguments):
        done = self.host.ctl(*arguments)
        if done.returncode != 0:
            raise AssertionError(f"vtpmctl {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def close(self):
        for node in self.opened:
            node.close()
        self.host.ctl("destroy", self.instance)  # takes its nodes along
        if os.path.exists(self.path):
            subprocess.run(["umount", "-q", "-l", self.path], check=False)
