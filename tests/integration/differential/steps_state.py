# SPDX-License-Identifier: Apache-2.0
"""Steps on what a TPM keeps: NV indices, PCRs, hierarchies, dictionary attack, audit; and on sessions and policies."""

import tpm2
from model import policy_digest
from stream import Entity, Fixed, blob, raw
from tpm2 import ALG, CC, b2, u16, u32, u64

ORDINARY, COUNTER, BITS, EXTEND, PIN_FAIL, PIN_PASS = 0, 0x10, 0x20, 0x40, 0x80, 0x90
OWNER_WRITE, AUTH_WRITE, POLICY_WRITE, OWNER_READ, AUTH_READ, POLICY_READ = 0x2, 0x4, 0x8, 0x20000, 0x40000, 0x80000
WRITE_ALL, WRITE_DEFINE, WRITE_STCLEAR, GLOBAL_LOCK, READ_STCLEAR, NO_DA, ORDERLY, CLEAR_STCLEAR = (
    0x1000, 0x2000, 0x4000, 0x8000, 0x80000000, 0x2000000, 0x4000000, 0x8000000)

SIGNED = (2, 4, 6, 8)  # TPM_EO_SIGNED_GT, _LT, _GE, _LE
LATE = 330  # commands of a stream


class State:
    """Mixed into the generator."""

    # ---- NV

    def nv_define(self):
        if len(self.indices) > 9:
            return self.nv_undefine()
        kind = self.pick([ORDINARY] * 3 + [COUNTER, BITS, EXTEND, PIN_FAIL, PIN_PASS])
        size = {ORDINARY: self.random.choice([0, 1, 32, 100, 500, 2048, 2049]), EXTEND: 32}.get(kind, 8)
        attributes = kind | OWNER_WRITE | OWNER_READ
        for flag, share in ((AUTH_WRITE, 0.7), (AUTH_READ, 0.8), (POLICY_WRITE, 0.2), (POLICY_READ, 0.2), (WRITE_ALL, 0.1),
                            (WRITE_DEFINE, 0.1), (WRITE_STCLEAR, 0.15), (GLOBAL_LOCK, 0.1), (READ_STCLEAR, 0.15), (NO_DA, 0.6),
                            (ORDERLY, 0.2), (CLEAR_STCLEAR, 0.1)):
            attributes |= flag if self.chance(share) else 0
        if kind in (PIN_FAIL, PIN_PASS):
            attributes &= ~(AUTH_WRITE | GLOBAL_LOCK | WRITE_DEFINE)
        if kind == PIN_FAIL:
            attributes |= NO_DA
        if kind == COUNTER:
            attributes &= ~CLEAR_STCLEAR
        recipe = self.pick([None, ("CommandCode:NV_ChangeAuth",), ("AuthValue",), ("Locality",)])
        index = Entity("index", nv=kind, size=size, no_da=bool(attributes & NO_DA), policy=recipe, attributes=attributes,
                       pin=kind in (PIN_FAIL, PIN_PASS))
        index.auth = self.new_auth()
        handle = 0x01000000 + self.random.randrange(24)
        public = u32(handle) + u16(ALG["sha256"]) + u32(attributes) + b2(policy_digest(recipe or ()) if recipe else b"") + u16(size)

        def done():
            self.indices.append(index)
            self.queue.append(lambda: self.nv_public(index))

        def out(replica, response):
            index.set(replica, handle=handle, name=b"", alive=True)

        return self.step("NV_DefineSpace", [self.owner], 1, [b2(index.auth), b2(public)], out, done)

    def nv_public(self, index):
        def out(replica, response):
            reader = tpm2.Reader(response.params)
            reader.b2()
            index.set(replica, name=reader.b2())

        # Not the index itself: its Name may have changed since.
        return self.plain_step("NV_ReadPublic", [index], (), out)

    def nv_undefine(self):
        index = self.pick(self.indices)
        return index and self.last_step(index, "NV_UndefineSpace", [self.owner, index], 1, ())

    def nv_authority(self, index, flag=AUTH_WRITE):
        """The index itself where its attributes allow that, mostly."""
        allowed = index.facts["attributes"] & flag
        return self.owner if self.chance(0.4 if allowed else 0.97) else index

    def written_index(self):
        return self.pick(i for i in self.indices if i.facts.get("written") or self.chance(0.1))

    def nv_renames(self, index):
        """A first write, or a lock, changes an index' attributes and with them its Name."""
        def done():
            index.facts["written"] = True
            self.queue.insert(0, lambda: self.nv_public(index))

        return done

    def nv_write(self):
        index = self.pick(self.indices)
        if index is None:
            return None
        authority, kind = self.owner if index.pin else self.nv_authority(index), index.nv
        done = self.nv_renames(index)
        if self.chance(0.04):
            kind = self.pick([ORDINARY, COUNTER, BITS, EXTEND])
        if kind == COUNTER:
            return self.step("NV_Increment", [authority, index], 1, (), None, done)
        if kind == BITS:
            return self.step("NV_SetBits", [authority, index], 1, [u64(self.random.getrandbits(64))], None, done)
        if kind == EXTEND:
            return self.step("NV_Extend", [authority, index], 1, [b2(self.bytes(0, 64))], None, done)
        data, offset = self.bytes(0, min(index.size, 1024)), 0
        if index.pin:
            data = u32(0) + u32(self.random.randint(0, 4))
        elif index.facts["attributes"] & WRITE_ALL:
            data = self.bytes(min(index.size, 1024))
        elif self.chance(0.3):
            offset = self.random.randint(0, max(1, index.size - len(data) + (3 if self.chance(0.1) else 0)))
        return self.step("NV_Write", [authority, index], 1, [b2(data), u16(offset)], None, done)

    def nv_read(self):
        index = self.written_index()
        if index is None:
            return None
        size = self.random.randint(0, min(1024, index.size + (1 if self.chance(0.1) else 0)))
        offset = self.random.randint(0, max(0, index.size - size))
        authority = self.nv_authority(index, AUTH_READ)
        return self.step("NV_Read", [authority, index], 1, [u16(size), u16(offset)])

    def nv_lock(self):
        index = self.pick(self.indices)
        if index is None or self.chance(0.1):
            def rename():
                for each in self.indices:
                    self.queue.insert(0, lambda each=each: self.nv_public(each))
            return self.step("NV_GlobalWriteLock", [self.owner], 1, (), None, rename)
        name = self.pick(["NV_ReadLock", "NV_WriteLock"])
        return self.step(name, [self.nv_authority(index), index], 1, (), None, self.nv_renames(index))

    def nv_change_auth(self):
        index = self.pick(self.indices)
        if index is None:
            return None
        auth = self.new_auth()

        def done():
            index.auth = auth

        return self.step("NV_ChangeAuth", [index], 1, [b2(auth)], None, done, role="policy")

    def nv_look(self):
        index = self.pick(self.indices)
        return index and self.nv_public(index)

    # ---- PCRs

    def pcr(self):
        return Fixed(self.pick([0, 1, 7, 8, 10, 15, 16, 16, 16, 16, 17, 20, 23, 23, 23, 24]) if self.chance(0.9) else tpm2.NULL)

    def pcr_step(self):
        what = self.pick(["extend", "extend", "event", "reset", "read", "read", "value"])
        if what == "extend":
            values = [(alg, self.bytes(tpm2.digest_size(ALG[alg]))) for alg in
                      self.pick([["sha256"], ["sha256"], ["sha1"], ["sha256", "sha384"], []])]
            return self.step("PCR_Extend", [self.pcr()], 1, [u32(len(values)), b"".join(u16(ALG[a]) + d for a, d in values)])
        if what == "event":
            return self.step("PCR_Event", [self.pcr()], 1, [b2(self.bytes(0, 1024))])
        if what == "reset":
            return self.step("PCR_Reset", [self.pcr()], 1)
        if what == "value":
            return self.step("PCR_SetAuthValue", [self.pcr()], 1, [b2(b"")])
        chosen = [p for p in range(24) if p != 17 and self.chance(0.25)]
        if self.chance(0.1):
            return self.step("PCR_Read", (), 0, [tpm2.pcrs([17])], same=False)
        return self.step("PCR_Read", (), 0, [tpm2.pcrs(chosen, self.pick([ALG["sha256"]] * 4 + [ALG["sha1"]]))])

    # ---- hierarchies, lockout

    def change_hierarchy_auth(self):
        entity = self.pick([self.owner, self.endorsement, self.lockout, self.owner, self.platform])
        auth = self.new_auth()

        def done():
            entity.auth = auth

        return self.step("HierarchyChangeAuth", [entity], 1, [b2(auth)], None, done)

    def hierarchy_step(self):
        what = self.pick(["policy", "control", "clear-control", "clock", "rate", "platform"])
        if self.made > LATE and self.chance(0.3):
            # What only the platform, whom nobody knows, could undo.
            if self.chance(0.5):
                return self.step("ClearControl", [self.lockout], 1, [b"\1"])
            return self.step("HierarchyControl", [self.endorsement], 1, [u32(tpm2.ENDORSEMENT), b"\0"], None, self.flush_endorsement)
        if what == "policy":
            entity = self.pick([self.owner, self.endorsement, self.lockout])
            policy = self.pick([(b"", 0x10), (policy_digest(("AuthValue",)), 0xB), (self.bytes(20), 0xB)])
            return self.step("SetPrimaryPolicy", [entity], 1, [b2(policy[0]), u16(policy[1])])
        if what == "control":
            # Enabling needs platformAuth; disabling would end the stream's owner for good.
            return self.step("HierarchyControl", [self.platform], 1, [u32(tpm2.OWNER), b"\0"])
        if what == "clear-control":
            return self.step("ClearControl", [self.platform if self.chance(0.7) else self.lockout], 1, [b"\0"])
        if what == "clock":
            self.clock = getattr(self, "clock", 1 << 24) + self.random.randint(-10, 1 << 20)
            return self.step("ClockSet", [self.owner], 1, [u64(self.clock)])
        if what == "rate":
            return self.step("ClockRateAdjust", [self.owner], 1, [self.pick([b"\0", b"\1", b"\xff", b"\5"])])
        name = self.pick(["ChangeEPS", "ChangePPS", "SetAlgorithmSet", "PCR_Allocate", "PCR_SetAuthPolicy"])
        params = {"SetAlgorithmSet": u32(0), "PCR_Allocate": tpm2.pcrs(range(24)),
                  "PCR_SetAuthPolicy": b2(b"") + u16(0x10) + u32(16)}.get(name, b"")
        return self.step(name, [self.platform], 1, [params])

    def flush_endorsement(self):
        self.objects = [o for o in self.objects if o.facts.get("hierarchy") != tpm2.ENDORSEMENT]

    def clear(self):
        def done():
            for hierarchy in (self.owner, self.endorsement, self.lockout):
                hierarchy.auth = b""
            kept = [o for o in self.objects if o.kind == "sequence" or o.facts.get("hierarchy") == tpm2.NULL]
            self.objects, self.persistents, self.indices, self.blobs = kept, [], [], []
            self.tickets = [t for t in self.tickets if t.ticket_kind == "rsa"]
            for session in self.sessions:
                session.facts["ready"] = None

        return self.step("Clear", [self.lockout], 1, (), lambda replica, response: self.bury(replica), done)

    @staticmethod
    def bury(replica):
        """Which objects a Clear leaves is the TPMs' affair: lists of handles are compared by kind from here on."""
        for values in replica.values.values():
            values["alive"] = False

    def lockout_step(self):
        self.locked_out = False
        if self.chance(0.8):
            return self.step("DictionaryAttackLockReset", [self.lockout], 1)
        return self.step("DictionaryAttackParameters", [self.lockout], 1,
                         [u32(self.random.randint(2, 30)), u32(self.random.randint(5000, 9000)), u32(self.random.randint(5000, 9000))])

    def audit_step(self):
        codes = self.random.sample(sorted(CC.values()), 2)
        who = self.owner if self.chance(0.8) else self.platform
        return self.step("SetCommandCodeAuditStatus", [who], 1, [u16(self.pick([0x10, 0xB, 0xB])), u32(len(codes[:1])), u32(codes[0]),
                         u32(1), u32(codes[1])])

    # ---- sessions and policies

    def new_session(self):
        return self.start_session(self.pick(["hmac", "hmac", "hmac", "policy", "trial"]))

    def policy_step(self):
        session = self.pick(s for s in self.sessions if s.session_kind != "hmac" or self.chance(0.03))
        if session is None:
            return None
        session.facts["ready"] = None
        size = tpm2.digest_size(session.alg)
        simple = {
            "PolicyAuthValue": lambda: [], "PolicyPassword": lambda: [], "PolicyRestart": lambda: [], "PolicyGetDigest": lambda: [],
            "PolicyCommandCode": lambda: [u32(self.pick(sorted(CC.values())))],
            "PolicyLocality": lambda: [self.pick([b"\1", b"\2", b"\x1f", b"\x40", b"\0"])],
            "PolicyPhysicalPresence": lambda: [], "PolicyNvWritten": lambda: [self.pick([b"\0", b"\1"])],
            "PolicyCpHash": lambda: [b2(self.bytes(size))], "PolicyNameHash": lambda: [b2(self.bytes(size))],
            "PolicyTemplate": lambda: [b2(self.bytes(size))],
            "PolicyOR": lambda: [u32(2), b2(bytes(size)), b2(self.bytes(size))],
            "PolicyPCR": lambda: [b2(b""), tpm2.pcrs([self.pick([16, 23, 0])])],
            "PolicyDuplicationSelect": lambda: [b2(self.bytes(34)), b2(self.bytes(34)), self.pick([b"\0", b"\1"])],
            "PolicyCounterTimer": lambda: [b2(bytes(8)), u16(0), u16(self.pick([5, 7, 4]))],
        }
        name = self.pick(list(simple) + ["secret", "secret", "nv", "signed", "signed", "authorize", "authorize", "authorize-nv", "digest", "ticket"])
        if name in simple:
            return self.plain_step(name, [session], simple[name]())
        if name == "digest":
            return self.step("PolicyGetDigest", [session])
        return getattr(self, "policy_" + name.replace("-", "_"))(session)

    def policy_secret(self, session):
        entity = self.pick([self.owner, self.endorsement] + self.objects)
        if isinstance(entity, Entity) and (entity.kind == "sequence" or entity.facts.get("public_only")):
            return None
        made = Entity("ticket", ticket_kind="policy", session=session, entity=entity, reference=self.bytes(0, 8))

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            made.set(replica, timeout=reader.b2(), ticket=reader.rest())

        expiration = self.pick([0, 0, 0xFFFFFF00, 600])  # negative: a ticket

        def done():
            if expiration > 1 << 31:
                self.tickets.append(made)
                if session in self.sessions:
                    self.queue.append(lambda: self.policy_ticket(session))

        return self.step("PolicySecret", [entity, session], 1, [b2(b""), b2(b""), b2(made.reference), u32(expiration)], out, done)

    def policy_ticket(self, session):
        made = self.pick(t for t in self.tickets if t.ticket_kind == "policy")
        return made and self.plain_step("PolicyTicket", [session], [blob(made, "timeout"), b2(b""), b2(made.reference),
                                        lambda replica: b2(made.entity.name(replica)), raw(made, "ticket")])

    def policy_nv(self, session):
        index = self.written_index()
        if index is None:
            return None
        operand, operation = self.bytes(0, min(8, index.size)), self.random.randint(0, 12)
        if not operand and operation in SIGNED:
            # libtpms looks at the sign of the first byte, which is not there: the answer is any.
            operation += 1  # the same comparison, unsigned
        return self.step("PolicyNV", [self.nv_authority(index, AUTH_READ), index, session], 1,
                         [b2(operand), u16(0), u16(operation)])

    def policy_authorize_nv(self, session):
        """The policy of an index holds now: a digest that a policy session reached is written first."""
        index = self.pick(i for i in self.indices if i.nv == ORDINARY and i.size >= 34)
        if index is None or session.alg != ALG["sha256"]:
            return None
        approved = policy_digest(("AuthValue",))
        self.queue += [
            lambda: self.step("NV_Write", [self.owner, index], 1, [b2(u16(ALG["sha256"]) + approved), u16(0)], None,
                              self.nv_renames(index)),
            lambda: self.plain_step("PolicyRestart", [session]),
            lambda: self.plain_step("PolicyAuthValue", [session]),
            lambda: self.step("PolicyAuthorizeNV", [self.nv_authority(index, AUTH_READ), index, session], 1)]
        return None

    def free_signer(self):
        """A key that signs what it is given."""
        return self.pick(k for k in self.objects if k.facts.get("sign") and not k.facts.get("restricted") and
                         not k.facts.get("public_only") and not k.facts.get("policy_only"))

    @staticmethod
    def free_scheme(key):
        return u16(ALG["rsassa" if key.type == "rsa" else "ecdsa"]) + u16(ALG["sha256"])

    def policy_signed(self, session):
        """A signature over what PolicySigned wants: made by the TPM itself in the step before."""
        key = self.free_signer()
        if key is None:
            return None
        expiration, reference = u32(0), self.bytes(0, 8)
        value = tpm2.digest(ALG["sha256"], b"", expiration, b"", reference)
        made = Entity("signature", ticket_kind="signature", key=key, digest=value)

        def use():
            return self.plain_step("PolicySigned", [key, session], [b2(b""), b2(b""), b2(reference), expiration, raw(made, "signature")])

        def out(replica, response):
            made.set(replica, signature=response.params)

        return self.step("Sign", [key], 1, [b2(value), self.free_scheme(key), u16(0x8024) + u32(tpm2.NULL) + b2(b"")],
                         out, lambda: self.queue.append(use))

    def policy_authorize(self, session):
        """Sign an approved policy, verify it for a ticket, authorize."""
        key = self.free_signer()
        if key is None or session.alg != ALG["sha256"]:
            return None
        approved, reference = bytes(32), self.bytes(0, 8)
        value = tpm2.digest(ALG["sha256"], approved, reference)
        made = Entity("ticket", ticket_kind="none")

        def signed(replica, response):
            made.set(replica, signature=response.params)

        def verified(replica, response):
            made.set(replica, ticket=response.params)

        def authorize():
            return self.plain_step("PolicyAuthorize", [session], [b2(approved), b2(reference), blob(key, "name"), raw(made, "ticket")])

        self.queue += [
            lambda: self.step("Sign", [key], 1, [b2(value), self.free_scheme(key), u16(0x8024) + u32(tpm2.NULL) +
                                                 b2(b"")], signed),
            lambda: self.plain_step("VerifySignature", [key], [b2(value), raw(made, "signature")], verified),
            lambda: self.plain_step("PolicyRestart", [session]), authorize]
        return None
