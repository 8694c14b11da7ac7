# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 on the wire, for tests: marshalling, sessions (HMAC, policy, bound, salted, parameter encryption) and the
little cryptography that they need, with the standard library alone. TCG TPM 2.0 Library, Parts 1 to 3, revision 1.59.
Nothing here is fit for secrets: it is neither constant in time nor careful with memory."""

import hashlib
import hmac as hmac_module
import os

ALG = {"rsa": 1, "sha1": 4, "hmac": 5, "aes": 6, "keyedhash": 8, "xor": 0xA, "sha256": 0xB, "sha384": 0xC, "sha512": 0xD,
       "null": 0x10, "rsassa": 0x14, "rsaes": 0x15, "rsapss": 0x16, "oaep": 0x17, "ecdsa": 0x18, "ecdh": 0x19,
       "ecdaa": 0x1A, "ecschnorr": 0x1C, "kdf1_sp800_56a": 0x20, "kdf1_sp800_108": 0x22, "ecc": 0x23, "symcipher": 0x25,
       "ctr": 0x40, "ofb": 0x41, "cbc": 0x42, "cfb": 0x43}
HASHES = {ALG["sha1"]: "sha1", ALG["sha256"]: "sha256", ALG["sha384"]: "sha384", ALG["sha512"]: "sha512"}
OWNER, NULL, LOCKOUT, ENDORSEMENT, PLATFORM, RS_PW = (0x40000001, 0x40000007, 0x4000000A, 0x4000000B, 0x4000000C,
                                                      0x40000009)
CONTINUE, AUDIT_EXCLUSIVE, AUDIT_RESET, DECRYPT, ENCRYPT, AUDIT = 1, 2, 4, 0x20, 0x40, 0x80
NO_SESSIONS, SESSIONS = 0x8001, 0x8002
SE_HMAC, SE_POLICY, SE_TRIAL = 0, 1, 3

CC = {
    "NV_UndefineSpaceSpecial": 0x11F, "EvictControl": 0x120, "HierarchyControl": 0x121, "NV_UndefineSpace": 0x122,
    "ChangeEPS": 0x124, "ChangePPS": 0x125, "Clear": 0x126, "ClearControl": 0x127, "ClockSet": 0x128,
    "HierarchyChangeAuth": 0x129, "NV_DefineSpace": 0x12A, "PCR_Allocate": 0x12B, "PCR_SetAuthPolicy": 0x12C,
    "PP_Commands": 0x12D, "SetPrimaryPolicy": 0x12E, "ClockRateAdjust": 0x130, "CreatePrimary": 0x131,
    "NV_GlobalWriteLock": 0x132, "GetCommandAuditDigest": 0x133, "NV_Increment": 0x134, "NV_SetBits": 0x135,
    "NV_Extend": 0x136, "NV_Write": 0x137, "NV_WriteLock": 0x138, "DictionaryAttackLockReset": 0x139,
    "DictionaryAttackParameters": 0x13A, "NV_ChangeAuth": 0x13B, "PCR_Event": 0x13C, "PCR_Reset": 0x13D,
    "SequenceComplete": 0x13E, "SetAlgorithmSet": 0x13F, "SetCommandCodeAuditStatus": 0x140,
    "IncrementalSelfTest": 0x142, "SelfTest": 0x143, "Startup": 0x144, "Shutdown": 0x145, "StirRandom": 0x146,
    "ActivateCredential": 0x147, "Certify": 0x148, "PolicyNV": 0x149, "CertifyCreation": 0x14A, "Duplicate": 0x14B,
    "GetTime": 0x14C, "GetSessionAuditDigest": 0x14D, "NV_Read": 0x14E, "NV_ReadLock": 0x14F,
    "ObjectChangeAuth": 0x150, "PolicySecret": 0x151, "Rewrap": 0x152, "Create": 0x153, "ECDH_ZGen": 0x154,
    "HMAC": 0x155, "Import": 0x156, "Load": 0x157, "Quote": 0x158, "RSA_Decrypt": 0x159, "HMAC_Start": 0x15B,
    "SequenceUpdate": 0x15C, "Sign": 0x15D, "Unseal": 0x15E, "PolicySigned": 0x160, "ContextLoad": 0x161,
    "ContextSave": 0x162, "ECDH_KeyGen": 0x163, "EncryptDecrypt": 0x164, "FlushContext": 0x165,
    "LoadExternal": 0x167, "MakeCredential": 0x168, "NV_ReadPublic": 0x169, "PolicyAuthorize": 0x16A,
    "PolicyAuthValue": 0x16B, "PolicyCommandCode": 0x16C, "PolicyCounterTimer": 0x16D, "PolicyCpHash": 0x16E,
    "PolicyLocality": 0x16F, "PolicyNameHash": 0x170, "PolicyOR": 0x171, "PolicyTicket": 0x172, "ReadPublic": 0x173,
    "RSA_Encrypt": 0x174, "StartAuthSession": 0x176, "VerifySignature": 0x177, "ECC_Parameters": 0x178,
    "GetCapability": 0x17A, "GetRandom": 0x17B, "GetTestResult": 0x17C, "Hash": 0x17D, "PCR_Read": 0x17E,
    "PolicyPCR": 0x17F, "PolicyRestart": 0x180, "ReadClock": 0x181, "PCR_Extend": 0x182, "PCR_SetAuthValue": 0x183,
    "NV_Certify": 0x184, "EventSequenceComplete": 0x185, "HashSequenceStart": 0x186, "PolicyPhysicalPresence": 0x187,
    "PolicyDuplicationSelect": 0x188, "PolicyGetDigest": 0x189, "TestParms": 0x18A, "Commit": 0x18B,
    "PolicyPassword": 0x18C, "ZGen_2Phase": 0x18D, "EC_Ephemeral": 0x18E, "PolicyNvWritten": 0x18F,
    "PolicyTemplate": 0x190, "CreateLoaded": 0x191, "PolicyAuthorizeNV": 0x192, "EncryptDecrypt2": 0x193,
    "CertifyX509": 0x197,
}
NAMES = {code: name for name, code in CC.items()}
# Commands whose response has a handle.
MAKES_HANDLE = {CC[n] for n in ("CreatePrimary", "Load", "LoadExternal", "ContextLoad", "HMAC_Start", "HashSequenceStart",
                                "StartAuthSession", "CreateLoaded")}


def u8(value):
    return value.to_bytes(1, "big")


def u16(value):
    return value.to_bytes(2, "big")


def u32(value):
    return value.to_bytes(4, "big")


def u64(value):
    return value.to_bytes(8, "big")


def b2(data):
    """A TPM2B."""
    return u16(len(data)) + data


def pcrs(selection, bank=ALG["sha256"]):
    """A TPML_PCR_SELECTION of one bank."""
    bits = sum(1 << pcr for pcr in selection)
    return u32(1) + u16(bank) + u8(3) + bits.to_bytes(3, "little")


def digest(alg, *parts):
    return hashlib.new(HASHES[alg], b"".join(parts)).digest()


def digest_size(alg):
    return hashlib.new(HASHES[alg]).digest_size


def mac(alg, key, *parts):
    return hmac_module.new(key, b"".join(parts), HASHES[alg]).digest()


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if self.at + size > len(self.data):
            raise ValueError("a response ends too early")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def b2(self):
        return self.take(self.number(2))

    def rest(self):
        return self.take(len(self.data) - self.at)


# ---- key derivation and parameter encryption

def kdfa(alg, key, label, u, v, bits):
    out, counter = b"", 0
    while len(out) * 8 < bits:
        counter += 1
        out += mac(alg, key, u32(counter), label, b"\0", u, v, u32(bits))
    return out[:(bits + 7) // 8]


def kdfe(alg, z, label, u, v, bits):
    return digest(alg, u32(1), z, label, b"\0", u, v)[:(bits + 7) // 8]


def make_sbox():
    def multiply(a, b):
        product = 0
        while b:
            product ^= a if b & 1 else 0
            a, b = (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
        return product

    box = []
    for x in range(256):
        inverse = next((y for y in range(256) if multiply(x, y) == 1), 0)
        box.append(0x63)
        for shift in range(5):
            box[x] ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
    return bytes(box)


SBOX = make_sbox()
DOUBLED = bytes(((x << 1) ^ (0x1B if x & 0x80 else 0)) & 0xFF for x in range(256))


def aes_rounds(key):
    words = [key[i:i + 4] for i in range(0, len(key), 4)]
    count, constant = len(words), 1
    for i in range(count, 4 * (count + 7)):
        word = words[-1]
        if i % count == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = DOUBLED[constant]
        elif count > 6 and i % count == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[i - count], word)))
    return [b"".join(words[i:i + 4]) for i in range(0, len(words), 4)]


def aes_block(rounds, block):
    state = bytes(a ^ b for a, b in zip(block, rounds[0]))
    for number, round_key in enumerate(rounds[1:], 1):
        state = bytes(SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16))
        if number < len(rounds) - 1:
            mixed = []
            for c in range(0, 16, 4):
                column = state[c:c + 4]
                for r in range(4):
                    a, b = column[r], column[(r + 1) % 4]
                    mixed.append(DOUBLED[a] ^ DOUBLED[b] ^ b ^ column[(r + 2) % 4] ^ column[(r + 3) % 4])
            state = bytes(mixed)
        state = bytes(a ^ b for a, b in zip(state, round_key))
    return state


def aes_cfb(key, iv, data, encrypt):
    rounds, out = aes_rounds(key), b""
    for i in range(0, len(data), 16):
        block = data[i:i + 16]
        changed = bytes(a ^ b for a, b in zip(block, aes_block(rounds, iv)))
        out += changed
        iv = changed if encrypt else block
    return out


# ---- secrets of salted sessions

P256_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
          0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def ec_add(p, q):
    if p is None or q is None:
        return p or q
    if p[0] == q[0]:
        if (p[1] + q[1]) % P256_P == 0:
            return None
        slope = (3 * p[0] * p[0] - 3) * pow(2 * p[1], -1, P256_P)
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, P256_P)
    x = (slope * slope - p[0] - q[0]) % P256_P
    return x, (slope * (p[0] - x) - p[1]) % P256_P


def ec_multiply(k, point):
    out = None
    while k:
        out = ec_add(out, point) if k & 1 else out
        point, k = ec_add(point, point), k >> 1
    return out


def salt_for_p256(random, x, y, label=b"SECRET", alg=ALG["sha256"]):
    """(secret, TPM2B_ENCRYPTED_SECRET's content) for a P-256 key with a nameAlg."""
    private = random.getrandbits(255) + 1
    mine = ec_multiply(private, P256_G)
    shared = ec_multiply(private, (int.from_bytes(x, "big"), int.from_bytes(y, "big")))[0]
    point = [c.to_bytes(32, "big") for c in mine]
    secret = kdfe(alg, shared.to_bytes(32, "big"), label, point[0], x.rjust(32, b"\0"), digest_size(alg) * 8)
    return secret, b2(point[0]) + b2(point[1])


def salt_for_rsa(random, modulus, label=b"SECRET", alg=ALG["sha256"]):
    size, secret = digest_size(alg), random.randbytes(digest_size(alg))

    def mask(seed, length):
        return b"".join(digest(alg, seed, u32(i)) for i in range(length // size + 1))[:length]

    length = len(modulus) - size - 1
    block = digest(alg, label + b"\0") + bytes(length - 2 * size - 1) + b"\1" + secret
    seed = random.randbytes(size)
    block = bytes(a ^ b for a, b in zip(block, mask(seed, length)))
    seed = bytes(a ^ b for a, b in zip(seed, mask(block, size)))
    number = pow(int.from_bytes(b"\0" + seed + block, "big"), 65537, int.from_bytes(modulus, "big"))
    return secret, number.to_bytes(len(modulus), "big")


# ---- sessions and commands

class Session:
    """One TPM's side of a session."""

    def __init__(self, alg, symmetric, nonce_caller):
        self.alg, self.symmetric, self.nonce_caller = alg, symmetric, nonce_caller
        self.handle, self.nonce_tpm, self.key = 0, b"", b""

    def start(self, handle, nonce_tpm, secret):
        """secret: None without bind and salt, else bind's auth value and the salt."""
        self.handle, self.nonce_tpm = handle, nonce_tpm
        if secret is not None:
            self.key = kdfa(self.alg, secret, b"ATH", nonce_tpm, self.nonce_caller, digest_size(self.alg) * 8)

    def crypt(self, extra_key, newer, older, data, encrypt):
        key = self.key + extra_key
        if self.symmetric == "xor":
            pad = kdfa(self.alg, key, b"XOR", newer, older, len(data) * 8)
            return bytes(a ^ b for a, b in zip(data, pad))
        material = kdfa(self.alg, key, b"CFB", newer, older, 256)
        return aes_cfb(material[:16], material[16:], data, encrypt)


class Authorization:
    """One entry of a command's authorization area. session None: a password. `auth` is the entity's value, which goes
    into the HMAC if `keyed`; plain: a policy session with PolicyPassword; bare: a policy session that needs no HMAC."""

    def __init__(self, session=None, auth=b"", attributes=CONTINUE, nonce=b"", keyed=True, plain=False, policy=False,
                 entity=True, wrong=False):
        self.session, self.auth, self.attributes, self.nonce = session, auth, attributes, nonce
        self.keyed, self.plain, self.policy, self.entity, self.wrong = keyed, plain, policy, entity, wrong

    def hmac_key(self):
        return self.session.key + (self.auth if self.keyed else b"")

    def proof(self, text):
        if self.session is None or self.plain:
            return self.auth
        if self.policy and not self.hmac_key():
            return b""
        proof = mac(self.session.alg, self.hmac_key(), text)
        return bytes([proof[0] ^ 1]) + proof[1:] if self.wrong else proof

    def extra_key(self):
        return self.auth if self.entity else b""


def with_flag(authorizations, flag):
    return next((a for a in authorizations if a.session is not None and a.attributes & flag), None)


def has_first_b2(params):
    return len(params) >= 2 and 2 + int.from_bytes(params[:2], "big") <= len(params)


def command(code, handles=(), params=b"", authorizations=(), tag=None):
    """handles: (handle, Name) pairs."""
    area = b"".join(u32(handle) for handle, _ in handles)
    decryptor = with_flag(authorizations, DECRYPT)
    if decryptor and decryptor.session.symmetric and has_first_b2(params):
        end = 2 + int.from_bytes(params[:2], "big")
        hidden = decryptor.session.crypt(decryptor.extra_key(), decryptor.nonce, decryptor.session.nonce_tpm,
                                         params[2:end], True)
        params = params[:2] + hidden + params[end:]
    body = area
    if authorizations:
        entries = b"".join(entry(i, code, handles, params, authorizations) for i in range(len(authorizations)))
        body += u32(len(entries)) + entries
    tag = tag or (SESSIONS if authorizations else NO_SESSIONS)
    return u16(tag) + u32(10 + len(body) + len(params)) + u32(code) + body + params


def entry(index, code, handles, params, authorizations):
    one = authorizations[index]
    if one.session is None:
        return u32(RS_PW) + b2(one.nonce) + u8(one.attributes) + b2(one.auth)
    parameters = digest(one.session.alg, u32(code), b"".join(name for _, name in handles), params)
    others = b""
    if index == 0:
        decryptor, encryptor = with_flag(authorizations, DECRYPT), with_flag(authorizations, ENCRYPT)
        if decryptor and decryptor is not one:
            others += decryptor.session.nonce_tpm
        if encryptor and encryptor is not one and encryptor is not decryptor:
            others += encryptor.session.nonce_tpm
    text = parameters + one.nonce + one.session.nonce_tpm + others + u8(one.attributes)
    return u32(one.session.handle) + b2(one.nonce) + u8(one.attributes) + b2(one.proof(text))


class Response:
    """A response, taken apart; `handle` and `params` only of a success. `proofs`: per authorization (size of nonceTPM,
    attributes, size of the HMAC, whether it is right)."""

    def __init__(self, data, code, authorizations=()):
        reader = Reader(data)
        self.data, self.tag, self.size, self.rc = data, reader.number(2), reader.number(4), reader.number(4)
        self.handle, self.params, self.proofs = None, b"", []
        if self.rc != 0:
            return
        if code in MAKES_HANDLE:
            self.handle = reader.number(4)
        if self.tag != SESSIONS:
            self.params = reader.rest()
            return
        self.params = reader.take(reader.number(4))
        shown = self.params
        for one in authorizations:
            nonce, attributes, proof = reader.b2(), reader.number(1), reader.b2()
            self.proofs.append((len(nonce), attributes, len(proof), self.check(one, code, shown, nonce, attributes, proof)))
        if reader.at != len(data):
            raise ValueError("a response has more behind its sessions")

    def check(self, one, code, shown, nonce, attributes, proof):
        if one.session is None:
            return proof == b"" and nonce == b""
        one.session.nonce_tpm = nonce
        if one.attributes & ENCRYPT and one.session.symmetric and has_first_b2(shown):
            end = 2 + int.from_bytes(shown[:2], "big")
            clear = one.session.crypt(one.extra_key(), nonce, one.nonce, shown[2:end], False)
            self.params = shown[:2] + clear + shown[end:]
        if one.plain or (one.policy and not one.hmac_key()):
            return proof == b""
        parameters = digest(one.session.alg, u32(0), u32(code), shown)
        return proof == mac(one.session.alg, one.hmac_key(), parameters, nonce, one.nonce, u8(attributes))


class Node:
    """A TPM behind a file: a vTPM's node."""

    def __init__(self, path):
        self.path, self.fd = path, os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def transceive(self, data):
        os.write(self.fd, data)
        return os.read(self.fd, 8192)

    def close(self):
        os.close(self.fd)
