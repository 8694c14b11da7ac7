# SPDX-License-Identifier: Apache-2.0
"""Makes a stream of commands from a seed: what to do next, and how to spoil it."""

import tpm2
from model import Model
from steps_keys import Keys
from steps_objects import Objects
from steps_state import State
from stream import Step
from tpm2 import CC, b2, u16, u32, u64

# How often which step is tried; those that cannot be made now are passed over.
WEIGHTS = {
    "create_primary": 9, "create": 9, "load": 10, "create_loaded": 3, "load_external": 9, "flush": 7, "context_save": 3,
    "context_load": 4, "evict": 3, "read_public": 3, "object_change_auth": 3, "misplaced": 4,
    "sign": 7, "verify": 4, "hash_": 4, "hmac": 4, "sequence_start": 3, "sequence_update": 3, "sequence_complete": 3,
    "event_complete": 2, "encrypt_decrypt": 4, "rsa_encrypt": 3, "rsa_decrypt": 5, "ecdh": 3, "commit": 2, "unseal": 4, "attest": 8,
    "duplicate": 4, "import_": 4, "rewrap": 3, "credential": 3,
    "nv_define": 5, "nv_undefine": 1.2, "nv_write": 9, "nv_read": 7, "nv_lock": 1, "nv_change_auth": 2, "nv_look": 2,
    "pcr_step": 7, "change_hierarchy_auth": 0.6, "hierarchy_step": 1.5, "clear": 0.12, "lockout_step": 0.8, "audit_step": 1,
    "new_session": 10, "policy_step": 16, "capability": 6, "odds": 5,
}
# Commands that may answer a changed parameter with a success that the model cannot follow.
FRAGILE = {CC[n] for n in ("HierarchyChangeAuth", "NV_ChangeAuth", "Clear", "HierarchyControl", "ClearControl", "SetPrimaryPolicy",
                           "DictionaryAttackParameters", "ClockSet", "FlushContext")}
# What random changes must not ask for: they end a stream (owner disabled, years of clock, a TPM that waits for its lockout).
LIMITS = {"properties": [0x100, 0x110, 0x120, 0x12E, 0x200, 0x206, 0x210, 0, 0x300, 0xFFFFFFFF]}


class Generator(Objects, Keys, State, Model):
    def __init__(self, seed, mutations=0.12):
        super().__init__(seed)
        self.mutations, self.made = mutations, 0
        self.names, self.weights = list(WEIGHTS), list(WEIGHTS.values())

    def next(self):
        self.made += 1
        while True:
            if self.queue:
                make = self.queue.pop(0)
                step = make() if make else None
                if step is not None:
                    return step
                continue
            name = self.random.choices(self.names, self.weights)[0]
            if self.locked_out and self.chance(0.5):
                name = "lockout_step"
            if self.free_slots() <= 0 and self.chance(0.25):
                name = "flush"
            self.again = getattr(self, name)
            step = self.again()
            if step is not None and self.is_tight(step):
                # One for which a managed node has room must change no more than objects and sessions.
                audited = any(use.attributes & tpm2.AUDIT for use in step.uses)
                if audited or step.code == CC["EvictControl"] or self.chance(0.9):
                    continue
            if step is not None:
                if self.chance(self.mutations):
                    self.spoil(step)
                return step

    def is_tight(self, step):
        """Whether a step needs more slots than are free. A few are made, to see the TPMs say so."""
        need = sum(1 for h in step.handles if getattr(h, "facts", {}).get("persistent"))
        need += step.code in tpm2.MAKES_HANDLE and step.code != CC["StartAuthSession"] or step.code == CC["Create"]
        if step.code == CC["StartAuthSession"] and len(self.sessions) >= 3:
            return True
        if step.code == CC["ContextLoad"]:
            return self.free_slots() < 1 or len(self.sessions) >= 3
        return need > self.free_slots()

    # ---- questions

    def capability(self):
        what = self.random.choices(["handles", "properties", "algorithms", "commands", "pcrs", "curves", "odd"], [5, 5, 1, 1, 1, 1, 2])[0]
        if what == "handles":
            first = self.pick([0, 0x01000000, 0x02000000, 0x03000000, 0x40000000, 0x80000000, 0x81000000, 0x80000001, 0x02000001])
            return self.step("GetCapability", (), 0, [u32(1), u32(first), u32(self.pick([0, 1, 3, 64, 254, 300]))])
        if what == "properties":
            return self.step("GetCapability", (), 0, [u32(6), u32(self.pick(LIMITS["properties"])), u32(self.pick([1, 5, 100]))])
        number = {"algorithms": 0, "commands": 2, "pcrs": 5, "curves": 8}.get(what)
        if number is None:
            return self.step("GetCapability", (), 0, [u32(self.pick([3, 4, 7, 9, 10, 0xFF, 0x100, 0xFFFFFFFF])), u32(
                self.pick([0, 1, 0x11F, 0x40000000])), u32(self.pick([1, 100]))])
        return self.step("GetCapability", (), 0, [u32(number), u32(self.pick([0, 0, 3, 0x130])), u32(self.pick([0, 1, 20, 254]))])

    def odds(self):
        what = self.pick(["GetRandom", "GetRandom", "StirRandom", "SelfTest", "IncrementalSelfTest", "GetTestResult", "ReadClock",
                          "TestParms", "ECC_Parameters", "Startup", "Shutdown", "unknown", "CertifyX509"])
        if what == "unknown":
            return Step(self.pick([0x11E, 0x12F, 0x141, 0x179, 0x194, 0x198, 0x20000000, 0x1FF, 0]), (), (), [self.bytes(0, 8)])
        if what == "CertifyX509":
            key = self.usable(sign=True)
            return key and self.step(what, [key, key], 2, [b2(b""), u16(0x10), b2(self.bytes(8))], roles=["admin", "user"])
        params = {
            "GetRandom": lambda: u16(self.pick([0, 1, 32, 64, 65, 0xFFFF])), "StirRandom": lambda: b2(self.bytes(0, 128)),
            "SelfTest": lambda: b"\0", "IncrementalSelfTest": lambda: u32(1) + u16(self.pick([0xB, 4, 0x18, 0x7777])),
            "TestParms": lambda: self.pick([u16(1) + u16(0x10) * 2 + u16(2048) + u32(0), u16(8) + u16(0x10), u16(0x25) + u16(6) +
                                            u16(192) + u16(0x43), u16(0x23) + u16(0x10) * 2 + u16(3) + u16(0x10), u16(99)]),
            "ECC_Parameters": lambda: u16(self.pick([3, 4, 5, 0x10, 0x20, 0x99])),
            "Startup": lambda: u16(self.pick([0, 1, 2])), "Shutdown": lambda: u16(self.pick([0, 1, 7]))}.get(what, lambda: b"")()
        return self.step(what, (), 0, [params])

    # ---- spoiling

    def spoil(self, step):
        """Changes parameters before they are authorized, or bytes of the finished command."""
        kind = self.pick(["flip", "size", "cut", "more", "raw-tag", "raw-code", "raw-auth", "raw-cut", "raw-size"])
        position, value = self.random.random(), self.random.getrandbits(16)
        if step.code in FRAGILE and kind in ("flip", "more"):
            kind = "cut"
        step.note = (step.note + " " + kind).strip()
        if kind.startswith("raw"):
            step.change_bytes = lambda data, area: damage(kind, data, area, position, value)
        else:
            step.change_params = lambda params: change(kind, params, position, value)


def change(kind, params, position, value):
    at = int(position * len(params)) if params else 0
    if kind == "more" or not params:
        return params + bytes(1 + value % 5)
    if kind == "cut":
        return params[:at]
    if kind == "size":
        # A size field that lies: the leading one, for others are at places that depend on the command.
        lies = [0, 1, len(params), len(params) + 1, 0xFFFF, value]
        return u16(lies[value % 6] & 0xFFFF) + params[2:]
    return params[:at] + bytes([params[at] ^ (1 << value % 8)]) + params[at + 1:]


def resize(data):
    return data[:2] + u32(len(data)) + data[6:]


def damage(kind, data, area, position, value):
    if kind == "raw-tag":
        tag = [0x8001, 0x8002, 0x00C1, 0x00C4, 0, 0x8003][value % 6]
        return u16(0 if u16(tag) == data[:2] else tag) + data[2:]
    if kind == "raw-code":
        # Never into something that exists: what it would do, the model does not know.
        return data[:6] + u32([0x1FF, 0x11E, 0x20000000 | 0x17B, 0x200, 0x179][value % 5]) + data[10:]
    if kind == "raw-cut":
        return resize(data[:10 + int(position * (len(data) - 10))])
    if kind == "raw-size":
        return data[:2] + u32([0, 9, len(data) - 1, len(data) + 1, 0xFFFFFFFF, 4097][value % 6]) + data[6:]
    sessions = data[:2] == u16(tpm2.SESSIONS) and len(data) > area + 13
    if not sessions:
        return resize(data + u64(value))
    # The authorization area: its size, or a byte behind the first session's handle.
    if value % 3 == 0:
        size = int.from_bytes(data[area:area + 4], "big")
        return data[:area] + u32([0, 8, size - 1, size + 1, 0xFFFFFFFF][value % 5]) + data[area + 4:]
    size = int.from_bytes(data[area:area + 4], "big")
    at = area + 8 + int(position * max(1, size - 4))
    at = min(at, len(data) - 1)
    return data[:at] + bytes([data[at] ^ (1 << value % 8)]) + data[at + 1:]


