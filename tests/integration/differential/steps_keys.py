# SPDX-License-Identifier: Apache-2.0
"""Steps that use keys: signatures, HMAC and hash sequences, ciphers, attestation, moving objects between parents."""

import tpm2
from steps_objects import NONE, SHA256
from stream import Entity, blob, raw
from tpm2 import ALG, b2, u16, u32

NO_TICKET = u16(0x8024) + u32(tpm2.NULL) + b2(b"")  # TPMT_TK_HASHCHECK


class Keys:
    """Mixed into the generator."""

    def usable(self, **facts):
        """Keys with private halves, whose slots are free."""
        return self.pick(k for k in self.keys(**facts) if not k.facts.get("public_only") and
                         (not k.facts.get("persistent") or self.free_slots()))

    def hash_alg(self):
        return ALG["sha256"] if self.chance(0.6) else ALG[self.pick(["sha1", "sha384", "sha512"])]

    def scheme_for(self, key):
        """(TPMT_SIG_SCHEME, hash) that a key accepts."""
        alg = ALG["sha256"] if key.facts.get("restricted") else self.hash_alg()
        if key.facts.get("scheme") or self.chance(0.05):
            return NONE, ALG["sha256"]
        if key.type == "rsa":
            return u16(ALG[self.pick(["rsassa", "rsassa", "rsapss"])]) + u16(alg), alg
        if key.type == "keyedhash":
            return NONE, ALG["sha256"]
        return u16(ALG[self.pick(["ecdsa", "ecdsa", "ecschnorr"])]) + u16(alg), alg

    def sign(self):
        key = self.usable(sign=True) if self.chance(0.8) else self.usable(hmac=True)
        if key is None:
            return None
        scheme, alg = self.scheme_for(key)
        value, ticket = self.bytes(tpm2.digest_size(alg)), NO_TICKET
        kept = self.pick(t for t in self.tickets if t.ticket_kind == "hash")
        if key.facts.get("restricted") and kept:
            value, ticket = kept.digest, raw(kept, "ticket")
        deterministic = key.facts.get("external") and (key.type == "keyedhash" or u16(ALG["rsassa"]) == scheme[:2])
        made = Entity("signature", ticket_kind="signature", key=key, digest=value)

        def out(replica, response):
            made.set(replica, signature=response.params)

        return self.step("Sign", [key], 1, [b2(value), scheme, ticket], out, lambda: self.tickets.append(made),
                         same=True if deterministic else None)

    def verify(self):
        made = self.pick(t for t in self.tickets if t.ticket_kind == "signature" and t.key in self.keys())
        if made is None:
            return None
        value = made.digest if self.chance(0.9) else self.bytes(len(made.digest))
        return self.step("VerifySignature", [made.key], 0, [b2(value), raw(made, "signature")])

    def hash_(self):
        data, alg = self.bytes(0, 200), self.hash_alg()
        made = Entity("ticket", ticket_kind="hash", digest=tpm2.digest(alg, data))

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            reader.b2()
            made.set(replica, ticket=reader.rest())

        hierarchy = self.pick([tpm2.OWNER, tpm2.NULL, tpm2.ENDORSEMENT])
        keep = alg == ALG["sha256"] and hierarchy != tpm2.NULL
        return self.step("Hash", (), 0, [b2(data), u16(alg), u32(hierarchy)], out,
                         lambda: self.tickets.append(made) if keep else None)

    def hmac(self):
        key = self.usable(hmac=True)
        return key and self.step("HMAC", [key], 1, [b2(self.bytes(0, 300)), u16(self.pick([ALG["null"], ALG["sha256"]]))],
                                 same=True if key.facts.get("external") else None)

    # ---- sequences

    def sequence_start(self):
        key = self.usable(hmac=True) if self.chance(0.4) else None
        alg = self.pick([ALG["null"], ALG["sha256"], ALG["sha256"], ALG["sha1"], ALG["sha512"]])
        entity = Entity("sequence", no_da=True, event=key is None and alg == ALG["null"], size=0,
                        same=key is None or key.facts.get("external"))
        entity.auth = self.new_auth()

        def out(replica, response):
            entity.set(replica, handle=response.handle, name=b"", alive=True)  # a sequence's Name is empty

        params = [b2(entity.auth), u16(alg if key is None else ALG["null"])]
        if key is None:
            return self.step("HashSequenceStart", (), 0, params, out, lambda: self.objects.append(entity))
        return self.step("HMAC_Start", [key], 1, params, out, lambda: self.objects.append(entity))

    def sequences(self, event=None):
        return self.pick(o for o in self.objects if o.kind == "sequence" and (event is None or o.event == event))

    def sequence_update(self):
        entity = self.sequences()
        return entity and self.step("SequenceUpdate", [entity], 1, [b2(self.bytes(0, 1024))])

    def sequence_complete(self):
        entity = self.sequences(event=False)
        if entity is None:
            return None
        return self.last_step(entity, "SequenceComplete", [entity], 1,
                              [b2(self.bytes(0, 100)), u32(self.pick([tpm2.NULL, tpm2.OWNER]))])

    def event_complete(self):
        entity = self.sequences(event=True)
        if entity is None:
            return None
        return self.last_step(entity, "EventSequenceComplete", [self.pcr(), entity], 2, [b2(self.bytes(0, 100))])

    # ---- ciphers and key agreement

    def encrypt_decrypt(self):
        key = self.usable(cipher=True)
        if key is None:
            return None
        data = b2(self.bytes(16 * self.random.randint(0, 8)))
        mode, decrypt, iv = u16(ALG["null"]), self.pick([b"\0", b"\1"]), b2(self.bytes(16))
        same = True if key.facts.get("external") else None
        if self.chance(0.5):
            return self.step("EncryptDecrypt", [key], 1, [decrypt, mode, iv, data], same=same)
        return self.step("EncryptDecrypt2", [key], 1, [data, decrypt, mode, iv], same=same)

    def rsa_encrypt(self):
        key = self.pick(self.keys(rsa=True))
        made = Entity("cipher", ticket_kind="rsa", key=key)

        def out(replica, response):
            made.set(replica, text=response.params)

        scheme = self.pick([u16(ALG["rsaes"]), u16(ALG["oaep"]) + SHA256])
        made.facts["scheme"] = scheme
        return key and self.step("RSA_Encrypt", [key], 0, [b2(self.bytes(1, 60)), scheme, b2(b"")], out,
                                 lambda: self.tickets.append(made))

    def rsa_decrypt(self):
        made = self.pick(t for t in self.tickets if t.ticket_kind == "rsa" and t.key in self.keys())
        if made is None or made.key.facts.get("public_only"):
            return None
        return self.step("RSA_Decrypt", [made.key], 1, [raw(made, "text"), made.scheme, b2(b"")], same=True)

    def ecdh(self):
        key = self.usable(ecdh=True)
        if key is None:
            return None
        if self.chance(0.3):
            return self.step("ECDH_KeyGen", [key])
        other = self.pick(k for k in self.keys(type="ecc") if k.facts.get("curve") == key.curve)

        def point(replica):
            public = other.value(replica, "public")
            size = len(public)
            width = {3: 32, 0x10: 32, 4: 48}[key.curve]
            return b2(public[size - 2 * width - 4:])

        return self.step("ECDH_ZGen", [key], 1, [point])

    def commit(self):
        """Commit and EC_Ephemeral: their counters must advance alike."""
        key = self.usable(ecdaa=True)
        if key is None or self.chance(0.4):
            return self.ephemeral()

        def out(replica, response):
            key.set(replica, counter=response.params[-2:])

        def sign():
            return self.step("Sign", [key], 1, [b2(self.bytes(32)), u16(ALG["ecdaa"]) + SHA256, raw(key, "counter"), NO_TICKET])

        return self.step("Commit", [key], 1, [b2(b2(b"") * 2), b2(b""), b2(b"")], out, lambda: self.queue.append(sign))

    def ephemeral(self):
        """EC_Ephemeral, and with its point and a key the two-phase exchange."""
        curve = self.pick([3, 4, 0x10])
        key, made = self.usable(ecdh=True, curve=curve), Entity("ephemeral")

        def out(replica, response):
            made.set(replica, point=response.params[:-2], counter=response.params[-2:])

        def exchange():
            if key not in self.keys():
                return None
            return self.step("ZGen_2Phase", [key], 1, [raw(made, "point"), raw(made, "point"), u16(ALG["ecdh"]), raw(made, "counter")])

        return self.step("EC_Ephemeral", (), 0, [u16(curve)], out, (lambda: self.queue.append(exchange)) if key else None)

    def unseal(self):
        key = self.usable(sealed=True)
        return key and self.step("Unseal", [key], 1, same=None if key.facts.get("kind_") == "seal" and "blob" not in key.facts
                                 else True)

    # ---- attestation

    def attest(self):
        key = self.usable(sign=True) if self.chance(0.9) else self.null
        if key is None:
            return None
        scheme = NONE if key is self.null else self.scheme_for(key)[0]
        data = b2(self.bytes(0, 32))
        what = self.pick(["Quote", "Quote", "Certify", "Certify", "GetTime", "CertifyCreation", "NV_Certify", "GetSessionAuditDigest",
                          "GetCommandAuditDigest"])
        if what == "Quote":
            return self.step(what, [key], 1, [data, scheme, tpm2.pcrs(self.random.sample(range(24), 3))])
        if what == "Certify":
            other = self.pick(o for o in self.objects + self.persistents if o.kind != "sequence")
            return other and self.step(what, [other, key], 2, [data, scheme], roles=["admin", "user"])
        if what in ("GetTime", "GetCommandAuditDigest"):
            return self.step(what, [self.endorsement, key], 2, [data, scheme])
        if what == "CertifyCreation":
            other = self.pick(o for o in self.objects if o.facts.get("primary") or o.facts.get("blob"))
            return other and self.step(what, [key, other], 1, [data, blob(other, "creation_hash"), scheme, raw(other, "ticket")])
        if what == "NV_Certify":
            index = self.pick(self.indices)
            return index and self.step(what, [key, index, index], 2, [data, scheme, u16(self.random.randint(0, 16)), u16(0)])
        session = self.pick(s for s in self.sessions if s.session_kind == "hmac")
        return session and self.step(what, [self.endorsement, key, session], 2, [data, scheme])

    # ---- moving objects

    def duplicate(self):
        entity = self.pick(o for o in self.objects if o.facts.get("movable") and o.kind == "object")
        if entity is None:
            return None
        target = self.null if self.chance(0.3) else self.pick(self.keys(storage=True) + self.keys(storage_public=True))
        target = target or self.null
        if isinstance(target, Entity) and target.facts.get("persistent") and not self.free_slots():
            target = self.null
        made = Entity("duplicate", source=entity, target=target)

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            made.set(replica, key=reader.b2(), private=reader.b2(), seed=reader.b2())

        made.facts["inner"] = inner = self.chance(0.3)

        def done():
            self.duplicates.append(made)
            self.queue.append(self.pick([self.import_, self.rewrap]))

        return self.step("Duplicate", [entity, target], 1, [b2(b""), u16(ALG["aes"]) + u16(128) + u16(ALG["cfb"]) if inner
                         else NONE], out, done, role="dup")

    def import_(self):
        made = self.pick([d for d in self.duplicates if d.target in self.keys() or d.target is self.null][-3:])
        if made is None:
            return None
        parent = made.target if made.target in self.keys(storage=True) else self.parent()
        if parent is None:
            return None
        entity = Entity("blob", **{**made.source.facts, "made_by": parent})
        entity.auth = made.source.auth

        def out(replica, response):
            entity.set(replica, private=tpm2.Reader(response.params).b2(), public=made.source.value(replica, "public"))

        scheme = u16(ALG["aes"]) + u16(128) + u16(ALG["cfb"]) if made.inner else NONE
        return self.step("Import", [parent], 1, [blob(made, "key"), blob(made.source, "public"), blob(made, "private"),
                         blob(made, "seed"), scheme], out, lambda: self.blobs.append(entity))

    def rewrap(self):
        made = self.pick(d for d in self.duplicates if d.target in self.keys(storage=True) and not d.inner)
        other = self.pick([k for k in self.keys(storage=True) if k.type != "symcipher"] + [self.null])
        if made is None or self.free_slots() < 1:
            return None
        return self.step("Rewrap", [made.target, other], 1, [blob(made, "private"), blob(made.source, "name"), blob(made, "seed")])

    def credential(self):
        storage, target = self.usable(storage=True), self.pick(o for o in self.objects if o.kind == "object")
        if storage is None or target is None or storage.type not in ("ecc", "rsa"):
            return None
        made = Entity("credential", ticket_kind="credential", storage=storage, target=target)
        secret = self.bytes(1, 32)

        def out(replica, response):
            made.set(replica, parameters=response.params)

        def activate():
            if target not in self.objects or storage not in self.keys():
                return None
            return self.step("ActivateCredential", [target, storage], 2, [raw(made, "parameters")], same=True,
                             roles=["admin", "user"])

        step = self.step("MakeCredential", [storage], 0, [b2(secret), blob(target, "name")], out,
                         lambda: self.queue.append(activate))
        return step

