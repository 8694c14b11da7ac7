# SPDX-License-Identifier: Apache-2.0
"""A command stream that is the same for several TPMs although their keys, nonces and blobs differ: steps name entities,
and each TPM's replica knows what an entity is there."""

import tpm2
from tpm2 import b2


class Missing(Exception):
    """A step needs what this TPM was not given: an earlier step was left out, or failed."""


class Fixed:
    """A handle that is the same everywhere and is its own Name: a hierarchy, a PCR, nonsense."""

    auth = b""

    def __init__(self, handle):
        self.number = handle

    def handle(self, replica):
        return self.number

    def name(self, replica):
        return tpm2.u32(self.number)

    def label(self):
        return f"0x{self.number:08x}"


class Hierarchy(Fixed):
    def __init__(self, handle, auth=b""):
        super().__init__(handle)
        self.auth = auth


class Entity:
    """An object, an NV index or a session: its handle, Name and blobs are each TPM's own."""

    count = 0

    def __init__(self, kind, **facts):
        Entity.count += 1
        self.id, self.kind, self.auth, self.facts = Entity.count, kind, b"", facts

    def __getattr__(self, name):
        try:
            return self.__dict__["facts"][name]
        except KeyError:
            raise AttributeError(name) from None

    def handle(self, replica):
        return self.value(replica, "handle")

    def name(self, replica):
        return self.value(replica, "name")

    def value(self, replica, key):
        try:
            return replica.values[self.id][key]
        except KeyError:
            raise Missing(f"{self.kind} {self.id} has no {key}") from None

    def set(self, replica, **values):
        replica.values.setdefault(self.id, {}).update(values)

    def label(self):
        return f"{self.kind}{self.id}"


def blob(entity, key):
    """A TPM2B of what a TPM once gave for an entity."""
    return lambda replica: b2(entity.value(replica, key))


def raw(entity, key):
    return lambda replica: entity.value(replica, key)


class Use:
    """How a step is authorized, for any TPM. session: an Entity or None (a password). auth: the entity's value."""

    def __init__(self, session=None, auth=b"", attributes=tpm2.CONTINUE, nonce=b"", **options):
        self.session, self.auth, self.attributes, self.nonce, self.options = session, auth, attributes, nonce, options

    def on(self, replica):
        session = None if self.session is None else self.session.value(replica, "session")
        return tpm2.Authorization(session, self.auth, self.attributes, self.nonce, **self.options)


class Step:
    """One command. handles: Fixed or Entity; params: bytes, or functions of a replica that give bytes. out(replica, response)
    keeps what a TPM answered; done() tells the model of a success; `same`: None compares by the command's layout, True all
    parameter bytes, False only their size."""

    def __init__(self, name, handles=(), uses=(), params=(), out=None, done=None, same=None):
        self.code = tpm2.CC[name] if isinstance(name, str) else name
        self.handles, self.uses, self.params = list(handles), list(uses), list(params)
        self.out, self.done, self.same = out, done, same
        self.change_params = self.change_bytes = None  # mutations
        self.ends = None  # the entity that is no more after a success, however the parameters were changed
        self.flushed = []  # sessions that were taken from all TPMs, since one alone had ended them
        self.note = ""

    def label(self):
        name = tpm2.NAMES.get(self.code, f"0x{self.code:x}")
        uses = [("pw" if u.session is None else u.session.label()) + f"/{u.attributes:02x}" for u in self.uses]
        return " ".join([name] + [h.label() for h in self.handles] + (["auth " + ",".join(uses)] if uses else []) +
                        ([f"[{self.note}]"] if self.note else []))

    def build(self, replica):
        """(the command's bytes, its authorizations)."""
        handles = [(h.handle(replica), h.name(replica)) for h in self.handles]
        params = b"".join(p if isinstance(p, bytes) else p(replica) for p in self.params)
        if self.change_params:
            params = self.change_params(params)
        uses = [u.on(replica) for u in self.uses]
        data = tpm2.command(self.code, handles, params, uses)
        if self.change_bytes:
            data = self.change_bytes(data, 10 + 4 * len(handles))
        return data, uses

    def run(self, replica):
        data, uses = self.build(replica)
        replica.last = data
        code = int.from_bytes(data[6:10], "big")
        response = tpm2.Response(replica.transceive(data), code, uses)
        response.code = code
        if response.rc == 0 and self.out and not self.change_bytes:
            self.out(replica, response)
        return response


class Replica:
    """One TPM and what the entities of the stream are there."""

    def __init__(self, endpoint):
        self.endpoint, self.name, self.values, self.last = endpoint, endpoint.name, {}, b""
        self.transceive = endpoint.transceive

    def entity_of(self, handle):
        """Which entity a handle is, for comparing lists of handles."""
        for number, values in self.values.items():
            if values.get("handle") == handle and values.get("alive"):
                return number
        return None

    def flush(self, handle):
        params = tpm2.u32(handle)
        self.transceive(tpm2.command(tpm2.CC["FlushContext"], params=params))
