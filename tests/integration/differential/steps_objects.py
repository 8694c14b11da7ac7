# SPDX-License-Identifier: Apache-2.0
"""Steps on objects: created, loaded, used, moved."""

import tpm2
from model import policy_digest
from stream import Entity, Fixed, Use, blob, raw
from tpm2 import ALG, b2, u16, u32

RSA_PRIME = bytes.fromhex(
    "f699e5c9e24cde76c7810f5ac843cfe14dd2a66c791cb715bd8320646491b93c8b0195521de0146c44a37730865b633dbd9f"
    "a7f09b8339c3e2b99ed050763e5c1ed7ec9ae123fae03ca64f867c652e6df9318023691315a52262b3375f340197d2e0faf2"
    "de65f67a91fa191d56d609d16c0edaed87812a3f8ed67fbd9f69fb33")
RSA_MODULUS = bytes.fromhex(
    "d9e0fd56ad92b57073c5ea99d8891d393e0fc4e5ac51de405e8f35fd163713d404edd74b141df5b98464dd3b4356d78114ae"
    "ada2a88191b192eb92402dc6c1cc46e515c1f885458913639f2ced3408cbbe75fc7e8cc771a01b83288df28aff040ce84516"
    "27528b5485b9532d410fc875b8e62c8351a2bc4f09b012347a8a7b61e48ff1e6ccec8c0f0e80e6b61c00e983381d3b0ca7fb"
    "6327bf9fc88aab8f10657bedef2b4b33f61e0528afbe7981f6fbc91345c7b7d842548287f72a6270dec34783bdcf8e88569e"
    "4fd2d8081f363ffc0548a9e6f46fce2e0f062e66e2900002ab48280945d5571fcac80ecd1b918b9bdfb2f11ad3f05472432a"
    "cfaccb772f4d")
FIXED_TPM, FIXED_PARENT, ORIGIN, USER, ADMIN, NO_DA, RESTRICTED, DECRYPT, SIGN = (
    0x2, 0x10, 0x20, 0x40, 0x80, 0x400, 0x10000, 0x20000, 0x40000)
NONE, AES = u16(ALG["null"]), u16(ALG["aes"]) + u16(128) + u16(ALG["cfb"])
SHA256 = u16(ALG["sha256"])
EXPONENT = u32(0)


def public_area(kind, attributes, policy, detail, unique):
    return u16(ALG[kind]) + SHA256 + u32(attributes) + b2(policy) + detail + unique


class Objects:
    """Mixed into the generator."""

    KINDS = ["storage", "storage", "sign", "sign", "restricted-sign", "ecdaa", "ecdh", "hmac", "seal", "seal", "aes", "rsa",
             "storage-aes", "derive"]

    def template(self, kind=None, primary=False):
        """(facts, public area, sensitive data)."""
        kind = kind or self.pick(self.KINDS)
        if kind in ("rsa",) and not self.chance(0.25):
            kind = "sign"
        attributes = USER | (NO_DA if self.chance(0.6) else 0)
        fixed = self.chance(0.7) or primary
        attributes |= FIXED_TPM | FIXED_PARENT if fixed else 0
        facts = {"kind_": kind, "no_da": bool(attributes & NO_DA), "movable": not fixed}
        recipe = self.pick([None, None, None, ("AuthValue",), ("Password",), ("Locality",), ("Secret:40000001",), ("Locality", "OR")])
        if not fixed and self.chance(0.8):
            recipe = ("CommandCode:Duplicate",)
        facts["policy"] = recipe
        if recipe and recipe[0] != "CommandCode:Duplicate" and self.chance(0.6):
            attributes &= ~USER
            facts["policy_only"] = True
        policy = policy_digest(recipe) if recipe else b""
        data, detail, unique, type_, extra = self.detail(kind)
        facts.update(extra, type=type_)
        attributes |= facts.pop("attributes")
        attributes |= ORIGIN if not data else 0
        return facts, public_area(type_, attributes, policy, detail, unique), data

    def detail(self, kind):
        """(sensitive data, parameters, unique, type, facts)."""
        curve = self.pick([3, 3, 3, 4, 0x10]) if kind in ("sign", "ecdaa", "ecdh") else 3
        end, unique = u16(curve) + NONE, b2(b"") + b2(b"")
        if kind == "storage":
            return b"", AES + NONE + end, unique, "ecc", dict(attributes=RESTRICTED | DECRYPT, storage=True, curve=3)
        if kind == "sign":
            return b"", NONE + NONE + end, unique, "ecc", dict(attributes=SIGN, sign=True, scheme=None, curve=curve)
        if kind == "restricted-sign":
            return b"", NONE + u16(ALG["ecdsa"]) + SHA256 + end, unique, "ecc", dict(
                attributes=RESTRICTED | SIGN, sign=True, scheme="ecdsa", restricted=True, curve=3)
        if kind == "ecdaa":
            return b"", NONE + u16(ALG["ecdaa"]) + SHA256 + u16(0) + end, unique, "ecc", dict(
                attributes=SIGN, ecdaa=True, curve=curve)
        if kind == "ecdh":
            return b"", NONE + NONE + end, unique, "ecc", dict(attributes=DECRYPT, ecdh=True, curve=curve)
        if kind == "rsa":
            return b"", NONE + NONE + u16(2048) + EXPONENT, b2(b""), "rsa", dict(
                attributes=DECRYPT | SIGN, sign=True, scheme=None, rsa=True)
        if kind == "hmac":
            return self.bytes(0, 48), u16(ALG["hmac"]) + SHA256, b2(b""), "keyedhash", dict(attributes=SIGN, hmac=True)
        if kind == "derive":
            return b"", u16(ALG["xor"]) + SHA256 + u16(ALG["kdf1_sp800_108"]), b2(b""), "keyedhash", dict(
                attributes=RESTRICTED | DECRYPT, derive=True)
        if kind == "aes":
            return self.bytes(16) if self.chance(0.5) else b"", u16(ALG["aes"]) + u16(128) + u16(
                ALG[self.pick(["cfb", "ctr", "cbc", "ofb"])]), b2(b""), "symcipher", dict(attributes=DECRYPT | SIGN, cipher=True)
        if kind == "storage-aes":
            return b"", AES, b2(b""), "symcipher", dict(attributes=RESTRICTED | DECRYPT, storage=True)
        return self.bytes(1, 100), NONE, b2(b""), "keyedhash", dict(attributes=0, sealed=True)

    # ---- coming to life

    def keep_object(self, entity, response, replica, public=None, name=None):
        entity.set(replica, handle=response.handle, alive=True, public=public, name=name)

    def create_primary(self):
        facts, public, data = self.template(self.pick(["storage", "storage", "sign", "restricted-sign", "ecdh", "ecdaa", "hmac", "aes", "seal", "derive"]),
                                            primary=True)
        hierarchy = self.pick([self.owner] * 4 + [self.endorsement] * 3 + [self.null] * 3 + [self.platform])
        entity = Entity("object", primary=True, hierarchy=hierarchy.number, **facts)
        entity.auth = self.new_auth()

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            made = reader.b2()
            creation, creation_hash, ticket = reader.b2(), reader.b2(), reader.take(6)
            ticket += b2(reader.b2())
            self.keep_object(entity, response, replica, made, reader.b2())
            entity.set(replica, creation=creation, creation_hash=creation_hash, ticket=ticket)

        pcr = tpm2.pcrs([self.pick(range(24))]) if self.chance(0.3) else u32(0)
        params = [b2(b2(entity.auth) + b2(data)), b2(public), b2(self.bytes(0, 20)), pcr]
        return self.step("CreatePrimary", [hierarchy], 1, params, out, lambda: self.objects.append(entity))

    def parent(self):
        choices = [k for k in self.keys(storage=True) if not k.facts.get("persistent") or self.free_slots()]
        srk = [k for k in choices if k.kind == "srk"]
        return srk[0] if srk and self.chance(0.6) else self.pick([k for k in choices if k.kind != "ek"] or choices)

    def create(self):
        parent = self.parent()
        if parent is None:
            return None
        facts, public, data = self.template()
        hierarchy = parent.hierarchy
        entity = Entity("blob", hierarchy=hierarchy, made_by=parent, **facts)
        entity.auth = self.new_auth()

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            entity.set(replica, private=reader.b2(), public=reader.b2(), creation=reader.b2(), creation_hash=reader.b2())
            entity.set(replica, ticket=reader.take(6) + b2(reader.b2()), parent=parent.value(replica, "name"))

        params = [b2(b2(entity.auth) + b2(data)), b2(public), b2(self.bytes(0, 20)), u32(0)]
        def done():
            self.blobs.append(entity)
            if self.free_slots() > 1 and self.chance(0.6):
                self.queue.append(lambda: self.load(entity))

        return self.step("Create", [parent], 1, params, out, done)

    def load(self, made=None):
        made = made or self.pick([b for b in self.blobs if b.made_by in self.objects + self.persistents][-6:])
        if made is None or self.chance(0.03):
            made = self.pick(self.blobs)
        if made is None:
            return None
        parent = made.made_by if made.made_by in self.keys() else self.parent()
        if parent is None or (parent.facts.get("persistent") and self.free_slots() == 0):
            return None
        entity = Entity("object", **{**made.facts, "blob": made, "made_by_": parent})
        entity.auth = made.auth

        def out(replica, response):
            self.keep_object(entity, response, replica, made.value(replica, "public"), tpm2.Reader(response.params).b2())
            entity.set(replica, **{k: made.value(replica, k) for k in ("creation_hash", "ticket") if k in replica.values[made.id]})

        def done():
            self.objects.append(entity)
            if entity.facts.get("movable") and self.chance(0.7):
                self.again = self.duplicate
                self.queue.append(self.duplicate)

        return self.step("Load", [parent], 1, [blob(made, "private"), blob(made, "public")], out, done)

    def create_loaded(self):
        parent = self.pick([self.parent(), self.owner, self.null] + self.keys(derive=True))
        if parent is None:
            return None
        derived = isinstance(parent, Entity) and parent.facts.get("derive")
        facts, public, data = self.template(self.pick(["sign", "storage", "hmac", "seal", "aes"]))
        if derived:
            facts, public, data = dict(kind_="seal", type="keyedhash", sealed=True), public_area(
                "keyedhash", USER | NO_DA | FIXED_PARENT | FIXED_TPM, b"", NONE, b2(self.bytes(4)) + b2(self.bytes(4))), b""
        entity = Entity("object", hierarchy=getattr(parent, "hierarchy", getattr(parent, "number", 0)), **facts)
        entity.auth = self.new_auth()

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            reader.b2()
            self.keep_object(entity, response, replica, reader.b2(), reader.b2())

        params = [b2(b2(entity.auth) + b2(data)), b2(public)]
        return self.step("CreateLoaded", [parent], 1, params, out, lambda: self.objects.append(entity))

    def load_external(self):
        """Keys that are the same in every TPM: what they compute can be compared byte for byte."""
        kind = self.pick(["rsa", "rsa", "hmac", "aes", "ecc", "public"])
        entity = Entity("object", external=True, hierarchy=tpm2.NULL, no_da=True)
        entity.auth, seed = self.new_auth(), self.bytes(32)
        facts, hierarchy, attributes = entity.facts, tpm2.NULL, USER | NO_DA
        if kind == "rsa":
            facts.update(type="rsa", rsa=True, sign=True, scheme=None)
            public = public_area("rsa", attributes | SIGN | DECRYPT, b"", NONE + NONE + u16(2048) + EXPONENT, b2(RSA_MODULUS))
            secret = RSA_PRIME
        elif kind == "hmac":
            facts.update(type="keyedhash", hmac=True)
            secret = self.bytes(20)
            public = public_area("keyedhash", attributes | SIGN, b"", u16(ALG["hmac"]) + SHA256,
                                 b2(tpm2.digest(ALG["sha256"], seed, secret)))
        elif kind == "aes":
            facts.update(type="symcipher", cipher=True)
            secret = self.bytes(16)
            mode = ALG[self.pick(["cfb", "ctr", "cbc", "ofb"])]
            public = public_area("symcipher", attributes | SIGN | DECRYPT, b"", u16(ALG["aes"]) + u16(128) + u16(mode),
                                 b2(tpm2.digest(ALG["sha256"], seed, secret)))
        elif kind == "ecc":
            facts.update(type="ecc", curve=3, sign=True, scheme=None)
            number = self.random.getrandbits(250) + 1
            point = [c.to_bytes(32, "big") for c in tpm2.ec_multiply(number, tpm2.P256_G)]
            secret = number.to_bytes(32, "big")
            public = public_area("ecc", attributes | SIGN, b"", NONE + NONE + u16(3) + NONE, b2(point[0]) + b2(point[1]))
        else:
            source, hierarchy = self.pick(self.keys(type="ecc") + self.keys(type="rsa")), self.pick(
                [tpm2.NULL, tpm2.OWNER, tpm2.ENDORSEMENT])
            if source is None:
                return None
            # An external key's private half stays outside, and with it what needs it.
            facts.update(type=source.type, curve=source.facts.get("curve"), public_only=True, rsa=source.facts.get("rsa"),
                         storage_public=source.facts.get("storage"), verifies=source, hierarchy=hierarchy)
            public, secret = raw(source, "public"), None
        sensitive = b"" if secret is None else u16(ALG[facts["type"]]) + b2(entity.auth) + b2(
            seed if kind in ("hmac", "aes") else b"") + b2(secret)

        def out(replica, response):
            shown = public if isinstance(public, bytes) else public(replica)
            self.keep_object(entity, response, replica, shown, tpm2.Reader(response.params).b2())

        wrapped = b2(public) if isinstance(public, bytes) else blob(source, "public")
        return self.step("LoadExternal", (), 0, [b2(sensitive), wrapped, u32(hierarchy)], out,
                         lambda: self.objects.append(entity))

    # ---- keeping, and letting go

    def flush(self, entity=None):
        entity = entity or self.pick(self.objects + [s for s in self.sessions if self.chance(0.3)])
        if entity is None:
            return None
        return self.last_step(entity, "FlushContext", (), 0, [lambda replica: u32(entity.handle(replica))])

    def context_save(self):
        entity = self.pick(self.objects + self.sessions)
        if entity is None:
            return None
        saved = Entity("context", source=entity)

        def out(replica, response):
            saved.set(replica, context=response.params)

        def done():
            self.contexts.append(saved)
            if entity.kind == "session":
                self.sessions.remove(entity)  # unloaded by saving

        return self.step("ContextSave", [entity], 0, (), out, done)

    def context_load(self):
        saved = self.pick(self.contexts)
        if saved is None:
            return None
        source = saved.source
        session = source.kind == "session"
        entity = source if session else Entity("object", **source.facts)
        entity.auth = source.auth

        def out(replica, response):
            if session:
                entity.set(replica, handle=response.handle, alive=True)
                return
            values = replica.values[source.id]
            entity.set(replica, **{k: v for k, v in values.items() if k not in ("handle", "alive")})
            entity.set(replica, handle=response.handle, alive=True)

        def done():
            if session:
                self.contexts.remove(saved)
                if entity not in self.sessions:
                    self.sessions.append(entity)
            else:
                self.objects.append(entity)

        return self.step("ContextLoad", (), 0, [raw(saved, "context")], out, done)

    def evict(self):
        """EvictControl: makes an object persistent, or removes one."""
        if self.persistents and self.chance(0.4):
            old = self.pick(p for p in self.persistents if not p.facts.get("provisioned") or self.chance(0.05))
            if old:
                owner = self.owner
                return self.last_step(old, "EvictControl", [owner, old], 1, [lambda replica: u32(old.handle(replica))])
        source = self.pick(o for o in self.objects if o.kind == "object" and not o.facts.get("public_only") and
                           (o.facts.get("hierarchy") != tpm2.NULL or self.chance(0.05)))
        if source is None or len(self.persistents) > 7:
            return None
        handle = 0x81000100 + self.random.randrange(40)
        entity = Entity("persistent", **{**source.facts, "persistent": True})
        entity.auth = source.auth

        def out(replica, response):
            entity.set(replica, **{k: v for k, v in replica.values[source.id].items() if k not in ("handle", "alive")})
            entity.set(replica, handle=handle, alive=True)

        return self.step("EvictControl", [self.owner, source], 1, [u32(handle)], out, lambda: self.persistents.append(entity))

    def read_public(self):
        entity = self.pick(self.objects + self.persistents)
        return entity and self.step("ReadPublic", [entity])

    def object_change_auth(self):
        entity = self.pick(o for o in self.objects if o.facts.get("blob"))
        if entity is None or entity.facts["made_by_"] not in self.keys():
            return None
        made = Entity("blob", **entity.facts["blob"].facts)
        made.auth = self.new_auth()

        def out(replica, response):
            made.set(replica, **replica.values[entity.facts["blob"].id])
            made.set(replica, private=tpm2.Reader(response.params).b2())

        return self.step("ObjectChangeAuth", [entity, entity.facts["made_by_"]], 1, [b2(made.auth)], out,
                         lambda: self.blobs.append(made), role="admin")

    def nothing_at(self):
        """A handle where nothing is."""
        return Fixed(self.pick([0x80000005, 0x8000000F, 0x80FFFFFE, 0x80FFFFFF, 0x81ABCDEF, 0x01ABCDEF, 0x02000030, 0x03000030,
                                0x40000003, 0x40000008, 0x4000000D, 0x00000018, 0x00FFFFFF, 0x90000000, 0xFFFFFFFF, 0, 0x40000007]))

    def misplaced(self):
        """A handle of the wrong kind, or of nothing, for a command that wants an object."""
        name = self.pick(["ReadPublic", "ContextSave", "NV_ReadPublic", "PolicyRestart", "PolicyGetDigest", "PCR_Reset", "Unseal",
                          "Sign", "Create", "Load", "EvictControl", "FlushContext", "SequenceUpdate", "StartAuthSession"])
        handle = self.nothing_at() if self.chance(0.7) else self.pick(
            self.objects + self.sessions + self.persistents + self.indices) or self.nothing_at()
        if name == "FlushContext":
            if isinstance(handle, Entity):
                return None
            return self.step(name, (), 0, [u32(handle.number)])
        if name == "StartAuthSession":
            return self.plain_step(name, [handle, self.null], [b2(self.bytes(16)), b2(b""), b"\0", NONE, SHA256])
        count = 1 if name in ("PCR_Reset", "Unseal", "Sign", "Create", "Load", "SequenceUpdate") else 0
        if name == "EvictControl":
            return self.plain_step(name, [self.owner, handle], [u32(0x81000180)])
        step = self.plain_step(name, [handle], [self.bytes(0, 12) if count else b""])
        if count:
            step.uses = [Use()]
        return step
