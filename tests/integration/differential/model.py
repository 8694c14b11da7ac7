# SPDX-License-Identifier: Apache-2.0
"""What a stream's generator knows of the TPMs: live handles, auth values, sessions and policies. It follows the swtpm's
answers, so that most commands that it makes succeed."""

import random

import tpm2
from endpoints import AK, EK, SRK
from stream import Entity, Fixed, Hierarchy, Step, Use
from tpm2 import ALG, CC, b2, u16, u32

NOTHING_TO_FLUSH = 0x1CB
SLOTS = 3  # libtpms' transient objects, and loaded sessions
# Commands whose first parameter is a TPM2B, and those whose first response parameter is one: they may be encrypted.
DECRYPTABLE = {CC[n] for n in (
    "CreatePrimary", "Create", "CreateLoaded", "Load", "NV_Write", "NV_Extend", "HierarchyChangeAuth", "NV_ChangeAuth",
    "ObjectChangeAuth", "Sign", "HMAC", "Hash", "SequenceUpdate", "SequenceComplete", "StirRandom", "PCR_Event", "Quote",
    "Certify", "RSA_Encrypt", "RSA_Decrypt", "PolicySecret", "NV_DefineSpace", "EncryptDecrypt2", "LoadExternal",
    "MakeCredential", "ActivateCredential", "HMAC_Start", "HashSequenceStart", "ECDH_ZGen", "GetTime", "Import")}
ENCRYPTABLE = {CC[n] for n in (
    "GetRandom", "Create", "CreatePrimary", "Unseal", "NV_Read", "ReadPublic", "HMAC", "Hash", "SequenceComplete", "Quote",
    "RSA_Decrypt", "RSA_Encrypt", "ECDH_ZGen", "ECDH_KeyGen", "Certify", "ObjectChangeAuth", "EncryptDecrypt",
    "EncryptDecrypt2", "PolicyGetDigest", "ActivateCredential", "NV_ReadPublic", "Load", "PolicySecret", "GetTime")}


def policy_digest(recipe, alg=ALG["sha256"]):
    """The authPolicy that a recipe leads to."""
    value = bytes(tpm2.digest_size(alg))
    for part in recipe:
        name, _, argument = part.partition(":")
        if name in ("AuthValue", "Password"):
            value = tpm2.digest(alg, value, u32(CC["PolicyAuthValue"]))
        elif name == "CommandCode":
            value = tpm2.digest(alg, value, u32(CC["PolicyCommandCode"]), u32(CC[argument]))
        elif name == "Locality":
            value = tpm2.digest(alg, value, u32(CC["PolicyLocality"]), b"\1")
        elif name == "Secret":
            value = tpm2.digest(alg, value, u32(CC["PolicySecret"]), u32(int(argument, 16)))
            value = tpm2.digest(alg, value)
        elif name == "OR":
            value = tpm2.digest(alg, bytes(len(value)), u32(CC["PolicyOR"]), value, bytes([7]) * len(value))
    return value


class Model:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.owner, self.endorsement = Hierarchy(tpm2.OWNER), Hierarchy(tpm2.ENDORSEMENT)
        self.lockout, self.null = Hierarchy(tpm2.LOCKOUT), Hierarchy(tpm2.NULL)
        self.platform = Hierarchy(tpm2.PLATFORM, b"not known here")
        self.objects, self.persistents, self.sessions, self.blobs = [], [], [], []
        self.contexts, self.indices, self.tickets, self.duplicates = [], [], [], []
        self.queue = []  # functions that make the next steps
        self.locked_out, self.again = False, None
        for name, handle in (("ek", EK), ("srk", SRK), ("ak", AK)):
            self.queue.append(lambda name=name, handle=handle: self.meet_provisioned(name, handle))

    # ---- choices

    def chance(self, probability):
        return self.random.random() < probability

    def pick(self, options):
        options = list(options)
        return self.random.choice(options) if options else None

    def bytes(self, low, high=None):
        return self.random.randbytes(low if high is None else self.random.randint(low, high))

    def new_auth(self):
        """An auth value; its last byte is not zero, for a TPM removes trailing zeros."""
        return b"" if self.chance(0.3) else self.bytes(1, 19) + b"\x2a"

    def free_slots(self):
        return SLOTS - len(self.objects)

    def keys(self, **facts):
        """Live objects, transient and persistent, with these facts."""
        known = self.objects + self.persistents
        return [e for e in known if all(e.facts.get(k) == v for k, v in facts.items())]

    # ---- the provisioned objects

    def meet_provisioned(self, name, handle):
        facts = {"ek": {"storage": True, "policy": ("Secret:4000000b",), "hierarchy": tpm2.ENDORSEMENT},
                 "srk": {"storage": True, "hierarchy": tpm2.OWNER},
                 "ak": {"sign": True, "scheme": "ecdsa", "restricted": True, "hierarchy": tpm2.ENDORSEMENT}}[name]
        entity = Entity(name, persistent=True, type="ecc", curve=3, provisioned=True, no_da=name != "ek", **facts)

        def out(replica, response):
            reader = tpm2.Reader(response.params)
            public = reader.b2()
            entity.set(replica, name=reader.b2(), public=public, alive=True)

        def prepare(replica):
            entity.set(replica, handle=handle, name=b"")
            return b""

        # A ReadPublic of the bare handle: its Name is in the answer.
        step = Step("ReadPublic", [Fixed(handle)], (), [prepare], out, lambda: self.persistents.append(entity))
        step.note = name
        return step

    # ---- authorization

    def spare_session(self, used, kind="hmac"):
        return self.pick([s for s in self.sessions if s.session_kind == kind and s not in used])

    def attributes(self):
        return tpm2.CONTINUE if self.chance(0.93) else 0

    def use_of(self, entity, code, used, role="user"):
        """A Use for an entity, or None: a policy session has to be made first (it is queued)."""
        wants_policy = role in ("policy", "dup") or (entity.facts.get("policy_only") if isinstance(entity, Entity) else False)
        if wants_policy or (role == "admin" and entity.facts.get("admin_policy")):
            return self.policy_use(entity, code, used)
        auth = entity.auth
        wrong = self.chance(0.008) and (not self.guarded(entity) or self.chance(0.3)) and entity is not self.lockout
        if wrong:
            auth = auth + b"wrong"
        session = self.spare_session(used) if self.chance(0.45) else None
        if session is None:
            return Use(None, auth, self.attributes() if self.chance(0.1) else 1)
        used.append(session)
        # The HMAC of a bound session has no auth value (Part 1, "Bound Session Key Generation"), but the key of parameter
        # encryption has: a wrong value there alone is no error, and what the TPM decrypts is any bytes.
        keyed = wrong or session.facts.get("bound") != (entity, entity.auth)
        return Use(session, auth, self.attributes(), self.bytes(16, 32), keyed=keyed)

    @staticmethod
    def guarded(entity):
        """Whether a wrong value counts as a dictionary attack."""
        return isinstance(entity, Entity) and not entity.facts.get("no_da")

    def policy_use(self, entity, code, used):
        recipe = entity.facts.get("policy")
        if recipe is None:
            return None
        ready = [s for s in self.sessions if s.session_kind == "policy" and s.facts.get("ready") == recipe and s not in used]
        if not ready:
            return None
        session = ready[0]
        used.append(session)
        plain, keyed = "Password" in recipe, "AuthValue" in recipe
        return Use(session, entity.auth, self.attributes(), self.bytes(16, 32), keyed=keyed, plain=plain, policy=True)

    def flags(self, code, uses, used):
        """Adds audit and parameter encryption to the sessions of a command, and sessions that serve only these."""
        if self.chance(0.15) and len(uses) < 3:
            session = self.spare_session(used)
            if session:
                used.append(session)
                uses.append(Use(session, b"", self.attributes(), self.bytes(16, 32), keyed=False, entity=False))
        sessions = [u for u in uses if u.session is not None]
        for use in sessions:
            hmac = use.session.session_kind == "hmac"
            if hmac and self.chance(0.1) and not any(u.attributes & tpm2.AUDIT for u in sessions):
                use.attributes |= tpm2.AUDIT | (tpm2.AUDIT_EXCLUSIVE if self.chance(0.1) else 0)
                use.attributes |= tpm2.AUDIT_RESET if self.chance(0.1) else 0
            if not use.session.facts.get("symmetric") and not self.chance(0.01):
                continue
            for flag, able in ((tpm2.DECRYPT, DECRYPTABLE), (tpm2.ENCRYPT, ENCRYPTABLE)):
                share = 0.4 if code in able else 0.004
                if self.chance(share) and not any(u.attributes & flag for u in sessions):
                    use.attributes |= flag
        # One that serves nothing is an error; some are left.
        for use in list(uses):
            if use.options.get("entity") is False and not use.attributes & 0xE0 and self.chance(0.9):
                use.attributes |= tpm2.AUDIT if not any(u.attributes & tpm2.AUDIT for u in uses) else 0
                if not use.attributes & 0xE0:
                    uses.remove(use)

    def step(self, name, handles=(), authorized=0, params=(), out=None, done=None, same=None, role="user", roles=None):
        """A step whose first `authorized` handles are authorized; None when a policy session has to be made first."""
        code, uses, used = CC[name], [], []
        busy = [h for h in handles if isinstance(h, Entity) and h.kind == "session"]
        used.extend(busy)
        for i, entity in enumerate(handles[:authorized]):
            use = self.use_of(entity, code, used, roles[i] if roles else role)
            if use is None:
                return self.queue_policy(entity, code)
            uses.append(use)
        self.flags(code, uses, used)
        step = Step(name, handles, uses, params, out, done, same)
        step.restart = [u.session for u in uses if u.session is not None and u.session.session_kind == "policy"]
        return step

    # ---- policy sessions on demand

    def queue_policy(self, entity, code):
        recipe = entity.facts.get("policy")
        if recipe is None:
            return None
        session = self.pick([s for s in self.sessions if s.session_kind == "policy" and s.alg == ALG["sha256"]])
        again, self.again = self.again, None  # what wanted it is tried once more
        if session is None:
            if len(self.sessions) >= SLOTS:
                self.queue.append(lambda: self.flush(self.pick(self.sessions)))
            self.queue += [lambda: self.start_session("policy"), again]
            return None
        session.facts["ready"] = None
        makers = [lambda: self.plain_step("PolicyRestart", [session])]
        makers += [lambda part=part: self.recipe_step(session, part, recipe) for part in recipe]

        def ready():
            session.facts["ready"] = recipe

        makers.append(lambda: self.plain_step("PolicyGetDigest", [session], done=ready))
        self.queue += makers + [again]
        return None

    def last_step(self, entity, *arguments):
        """A step after whose success the entity is no more."""
        step = self.step(*arguments, lambda replica, response: entity.set(replica, alive=False))
        if step:
            step.ends = entity
        return step

    def plain_step(self, name, handles=(), params=(), out=None, done=None, same=None):
        return Step(name, handles, (), params, out, done, same)

    def recipe_step(self, session, part, recipe):
        if session not in self.sessions:
            return None
        name, _, argument = part.partition(":")
        if name == "Secret":
            entity = {tpm2.OWNER: self.owner, tpm2.ENDORSEMENT: self.endorsement}[int(argument, 16)]
            return self.step("PolicySecret", [entity, session], 1, [b2(b""), b2(b""), b2(b""), u32(0)])
        if name == "OR":
            before = policy_digest(recipe[:recipe.index("OR")])
            return self.plain_step("PolicyOR", [session], [u32(2), b2(before), b2(bytes([7]) * 32)])
        params = {"CommandCode": lambda: u32(CC[argument]), "Locality": lambda: b"\1"}.get(name, lambda: b"")()
        return self.plain_step("Policy" + name, [session], [params])

    def start_session(self, kind, **options):
        """StartAuthSession: bound and salted at times, with XOR, AES or no parameter encryption."""
        alg = ALG["sha256"] if kind == "policy" or self.chance(0.8) else ALG[self.pick(["sha1", "sha384", "sha512"])]
        symmetric = self.pick([None, "xor", "aes", "aes"])
        bind = self.pick([self.owner, self.endorsement] + self.objects) if self.chance(0.3) else None
        if isinstance(bind, Entity) and (bind.kind == "sequence" or bind.facts.get("policy_only")):
            bind = None
        salt_key = self.pick(k for k in self.keys(storage=True, type="ecc", curve=3)) if self.chance(0.25) else None
        if salt_key and salt_key.facts.get("persistent") and self.free_slots() == 0:
            salt_key = None
        nonce, seed = self.bytes(16, tpm2.digest_size(alg)), self.random.getrandbits(64)
        session = Entity("session", session_kind=kind, alg=alg, symmetric=symmetric,
                         bound=(bind, bind.auth) if bind else None)
        secret_of = {}

        def salt(replica):
            if salt_key is None:
                return b2(b"")
            public = salt_key.value(replica, "public")
            reader = tpm2.Reader(public[-68:])
            secret, encrypted = tpm2.salt_for_p256(random.Random(seed), reader.b2(), reader.b2())
            secret_of[replica.name] = secret
            return b2(encrypted)

        def out(replica, response):
            secret = None
            if bind is not None or salt_key is not None:
                secret = (bind.auth if bind else b"") + secret_of.get(replica.name, b"")
            mine = tpm2.Session(alg, symmetric, nonce)
            mine.start(response.handle, tpm2.Reader(response.params).b2(), secret)
            session.set(replica, handle=response.handle, session=mine, name=u32(response.handle), alive=True)

        cipher = {None: u16(ALG["null"]), "xor": u16(ALG["xor"]) + u16(alg),
                  "aes": u16(ALG["aes"]) + u16(128) + u16(ALG["cfb"])}[symmetric]
        types = {"hmac": tpm2.SE_HMAC, "policy": tpm2.SE_POLICY, "trial": tpm2.SE_TRIAL}
        params = [b2(nonce), salt, tpm2.u8(types[kind]), cipher, u16(alg)]
        step = Step("StartAuthSession", [salt_key or self.null, bind or self.null], (), params, out,
                    lambda: self.sessions.append(session))
        step.note = f"session{session.id} {kind} {symmetric}"
        return step

    # ---- after a step

    def forget(self, entity):
        for known in (self.objects, self.persistents, self.sessions, self.indices):
            if entity in known:
                known.remove(entity)

    def after(self, step, response):
        """Follows the swtpm's answer."""
        for session in step.flushed:
            self.forget(session)
        if step.ends and response.rc in (0, NOTHING_TO_FLUSH):
            # Its number may be given out again, and to another object on a node that numbers handles its own way.
            self.forget(step.ends)
        if response.rc == 0 and not step.change_bytes:
            for use, proof in zip(step.uses, response.proofs):
                if use.session is not None and not proof[1] & tpm2.CONTINUE:
                    self.forget(use.session)
            for session in getattr(step, "restart", []):
                session.facts["ready"] = None
            if step.done and not step.change_params:
                step.done()
        elif response.rc in (0x910, 0x911, 0x912) and response.rc - 0x910 < len(step.handles):
            self.forget(step.handles[response.rc - 0x910])
        elif response.rc in (0x918, 0x919, 0x91A):
            if response.rc - 0x918 < len(step.uses) and step.uses[response.rc - 0x918].session:
                self.forget(step.uses[response.rc - 0x918].session)
        elif response.rc == 0x921:
            self.locked_out = True
