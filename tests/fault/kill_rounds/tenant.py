# SPDX-License-Identifier: Apache-2.0
"""A tenant that remembers what its TPM has acknowledged: NV data, a counter, persistent keys, TPM2_Clear."""

import copy
import os
import signal

import tpm2
from tpm2 import ALG, CC, b2, u16, u32

COUNTER = 0x01000100
INDICES = {0x01000101: b"", 0x01000102: b"guarded\x2a"}  # handle: auth value; the second is guarded by dictionary attack logic
KEYS = (0x81000200, 0x81000201, 0x81000202)
OWNER_WRITE, AUTH_WRITE, OWNER_READ, AUTH_READ, NO_DA, NT_COUNTER = 0x2, 0x4, 0x20000, 0x40000, 0x2000000, 0x10
SIGNING = (u16(ALG["ecc"]) + u16(ALG["sha256"]) + u32(0x40472) + b2(b"") + u16(0x10) * 2 + u16(3) + u16(0x10))
DATA = 32
RETRY = 0x922
LOCKOUT_COUNTER, PERMANENT, IN_LOCKOUT = 0x20E, 0x200, 1 << 9


class Gone(Exception):
    """The node broke off: what the last command did, nobody knows."""


class Lost(AssertionError):
    """The TPM does not have what it acknowledged."""


class Hung(AssertionError):
    """Neither an answer nor an error."""


PATIENCE = 60  # seconds


def give_up(*_):
    raise Hung(f"no answer and no error within {PATIENCE} s")


class Patience:
    """Nothing on a device node may block for ever."""

    def __enter__(self):
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(PATIENCE)

    def __exit__(self, *_):
        signal.alarm(0)


class Tenant:
    def __init__(self, random, path):
        self.random, self.path, self.node = random, path, None
        self.acknowledged = {"nv": {}, "counter": None, "keys": {}}
        self.possible = None  # the state after the command under way
        self.commands = self.clears = self.resets = 0

    # ---- the node

    def open(self):
        self.close()
        with Patience():
            self.node = tpm2.Node(self.path)

    def close(self):
        if self.node is not None:
            self.node.close()
            self.node = None

    def run(self, name, handles=(), params=b"", auth=None):
        """The response's parameters; a code that is no success is a finding."""
        password = [tpm2.Authorization(auth=auth)] if auth is not None else []
        data = tpm2.command(CC[name], [(h, b"") for h in handles], params, password)
        try:
            with Patience():
                answer = self.node.transceive(data)
        except OSError as error:
            raise Gone(f"{name}: {os.strerror(error.errno)}") from None
        if len(answer) < 10:
            raise Gone(f"{name}: {len(answer)} bytes")
        response = tpm2.Response(answer, CC[name], password)
        if response.rc == RETRY:  # the TPM first notes that dictionary attack logic is in use; tpm2-tss sends again too
            return self.run(name, handles, params, auth)
        if response.rc != 0:
            raise Lost(f"{name} was answered by 0x{response.rc:x}")
        self.commands += 1
        return response

    # ---- work

    def work(self):
        """One change, by one or more commands. `possible` is set while its deciding command is under way."""
        missing = [h for h in INDICES if h not in self.acknowledged["nv"]]
        if self.acknowledged["counter"] is None:
            return self.define(COUNTER)
        if missing:
            return self.define(missing[0])
        kind = self.random.choices(["write", "increment", "key", "clear", "look"], [10, 6, 3, 0.4, 1])[0]
        return getattr(self, kind)()

    def change(self, edit, name, *arguments, **options):
        after = copy.deepcopy(self.acknowledged)
        edit(after)
        self.possible = after
        response = self.run(name, *arguments, **options)
        self.acknowledged, self.possible = after, None
        return response

    def define(self, index):
        counter = index == COUNTER
        attributes = OWNER_WRITE | OWNER_READ | AUTH_WRITE | AUTH_READ | (NT_COUNTER if counter else 0)
        auth = b"" if counter else INDICES[index]
        attributes |= NO_DA if not auth else 0
        public = u32(index) + u16(ALG["sha256"]) + u32(attributes) + b2(b"") + u16(8 if counter else DATA)

        def edit(state):
            if counter:
                state["counter"] = "unwritten"
            else:
                state["nv"][index] = None

        self.change(edit, "NV_DefineSpace", [tpm2.OWNER], b2(auth) + b2(public), auth=b"")

    def write(self):
        index, data = self.random.choice(list(INDICES)), self.random.randbytes(DATA)
        self.change(lambda state: state["nv"].update({index: data}), "NV_Write", [index, index], b2(data) + u16(0),
                    auth=INDICES[index])

    def increment(self):
        def edit(state):
            state["counter"] = "first" if state["counter"] == "unwritten" else state["counter"] + 1

        self.change(edit, "NV_Increment", [COUNTER, COUNTER], auth=b"")
        if self.acknowledged["counter"] == "first":  # it begins above every counter that there was
            self.acknowledged["counter"] = self.read_counter()

    def key(self):
        handle = self.random.choice(KEYS)
        if handle in self.acknowledged["keys"]:
            self.change(lambda state: state["keys"].pop(handle), "EvictControl", [tpm2.OWNER, handle], u32(handle), auth=b"")
            return
        unique = b2(self.random.randbytes(32)) + b2(b"")
        made = self.run("CreatePrimary", [tpm2.OWNER], b2(b2(b"") + b2(b"")) + b2(SIGNING + unique) + b2(b"") + u32(0), auth=b"")
        name = made.params[-34:]
        self.change(lambda state: state["keys"].update({handle: name}), "EvictControl", [tpm2.OWNER, made.handle], u32(handle),
                    auth=b"")
        self.run("FlushContext", params=u32(made.handle))

    def clear(self):
        def edit(state):
            state.update({"nv": {}, "counter": None, "keys": {}})

        self.change(edit, "Clear", [tpm2.LOCKOUT], auth=b"")
        self.clears += 1
        self.resets = 0  # as TPM2_Clear sets it; known before the next command, which may not be answered
        self.resets = self.reset_count()

    def may_be_cleared(self):
        return self.possible is not None and not self.possible["nv"] and self.possible["counter"] is None

    def look(self):
        self.check("at work")

    # ---- looking

    def read_counter(self):
        return int.from_bytes(self.run("NV_Read", [tpm2.OWNER, COUNTER], u16(8) + u16(0), auth=b"").params[2:], "big")

    def handles(self, first):
        params = self.run("GetCapability", params=u32(1) + u32(first) + u32(254)).params
        return [int.from_bytes(params[i:i + 4], "big") for i in range(9, len(params), 4)]

    def property(self, number):
        return int.from_bytes(self.run("GetCapability", params=u32(6) + u32(number) + u32(1)).params[-4:], "big")

    def reset_count(self):
        return int.from_bytes(self.run("ReadClock").params[16:20], "big")

    def state(self):
        """What the TPM has, in the shape of `acknowledged`."""
        found = {"nv": {}, "counter": None, "keys": {}}
        for index in self.handles(0x01000000):
            attributes = int.from_bytes(self.run("NV_ReadPublic", [index]).params[8:12], "big")
            written = attributes & 0x20000000
            if index == COUNTER:
                found["counter"] = self.read_counter() if written else "unwritten"
            elif index in INDICES:
                found["nv"][index] = None if not written else self.run(
                    "NV_Read", [tpm2.OWNER, index], u16(DATA) + u16(0), auth=b"").params[2:]
        for handle in self.handles(0x81000000):
            if handle in KEYS:
                reader = tpm2.Reader(self.run("ReadPublic", [handle]).params)
                reader.b2()
                found["keys"][handle] = reader.b2()
        return found

    def check(self, when):
        """The TPM has all that it acknowledged, and nothing but that and the command that was under way."""
        found, possible = self.state(), self.possible
        for known in (self.acknowledged, possible):  # incremented, but the kill came before its value was read
            if known and known["counter"] == "first" and isinstance(found["counter"], int):
                known["counter"] = found["counter"]
        if found == self.acknowledged:
            self.possible = None
        elif found == possible:
            self.acknowledged, self.possible = found, None
        else:
            raise Lost(f"{when}: the TPM has {found}, acknowledged was {self.acknowledged}, under way {possible}")

    def check_lockout(self):
        """No unclean end has walked the tenant towards lockout: it has never failed a try, and its guarded index can be read."""
        if self.property(PERMANENT) & IN_LOCKOUT or self.property(LOCKOUT_COUNTER) > 0:
            raise Lost(f"lockout: counter {self.property(LOCKOUT_COUNTER)}, permanent {self.property(PERMANENT):x}")
        index = next((i for i, auth in INDICES.items() if auth and self.acknowledged["nv"].get(i)), None)
        if index:
            self.run("NV_Read", [index, index], u16(DATA) + u16(0), auth=INDICES[index])
