# SPDX-License-Identifier: Apache-2.0
"""What has to be the same in two TPMs' responses, and the table of differences that are meant."""

import tpm2

OBJECT_MEMORY, SESSION_MEMORY = 0x902, 0x903

# How response parameters are compared: "b" a TPM2B with its bytes, "s" a TPM2B by its size, "p" a TPM2B_PUBLIC without what
# the TPM chose, "a" a TPMS_ATTEST by its fixed part, "g" a TPMT_SIGNATURE by its kind, digits bytes, "-" before digits bytes that differ, "*" the rest,
# "~" the rest by its size.
LAYOUTS = {
    "GetRandom": "s", "Hash": "b6s", "HMAC": "s", "PCR_Read": "*", "NV_Read": "b", "NV_ReadPublic": "bb", "ReadPublic": "pss",
    "PolicyGetDigest": "s", "GetCapability": "!", "GetTestResult": "b4", "ECC_Parameters": "*", "TestParms": "*",
    "ReadClock": "-8-8-4-41", "CreatePrimary": "pss6ss", "Create": "spss6s", "CreateLoaded": "sps", "Load": "s", "LoadExternal": "s",
    "StartAuthSession": "s", "Quote": "ag", "Certify": "ag", "CertifyCreation": "ag", "GetTime": "ag", "NV_Certify": "ag",
    "GetSessionAuditDigest": "ag", "GetCommandAuditDigest": "ag", "Duplicate": "sss", "Rewrap": "ss", "Import": "s",
    "MakeCredential": "ss", "ActivateCredential": "b", "Unseal": "s", "RSA_Encrypt": "s", "RSA_Decrypt": "s",
    "ECDH_KeyGen": "ss", "ECDH_ZGen": "s", "PolicySecret": "s~", "PolicySigned": "s~", "VerifySignature": "~",
    "EncryptDecrypt": "ss", "EncryptDecrypt2": "ss", "SequenceComplete": "s~", "EventSequenceComplete": "*", "PCR_Event": "*",
    "ContextSave": "-8-444~", "ContextLoad": "", "Commit": "sss2", "EC_Ephemeral": "s2", "ObjectChangeAuth": "s",
    "IncrementalSelfTest": "*", "Sign": "g", "ZGen_2Phase": "ss", "CertifyX509": "~",
}

# Known differences of a managed node from a bare swtpm in TPM2_GetCapability(TPM_PROPERTIES), and why. A raw node has none.
MANAGED_PROPERTIES = {
    0x10E: "TPM_PT_HR_TRANSIENT_MIN: the space's room, not the TPM's",
    0x110: "TPM_PT_HR_LOADED_MIN: the space's room",
    0x203: "TPM_PT_HR_LOADED: the space's sessions",
    0x204: "TPM_PT_HR_LOADED_AVAIL: the space's room",
    0x205: "TPM_PT_HR_ACTIVE: the space's sessions",
    0x206: "TPM_PT_HR_ACTIVE_AVAIL: the space's room",
    0x207: "TPM_PT_HR_TRANSIENT_AVAIL: the space's room",
    0x213: "TPM_PT_AUDIT_COUNTER_0: other clients' commands, and those that move contexts, are audited too",
    0x214: "TPM_PT_AUDIT_COUNTER_1: its other half",
}


def skip_unique(public):
    """A TPMT_PUBLIC without its unique part, whose size is kept."""
    reader = tpm2.Reader(public)
    kind = reader.number(2)
    head = public[:2] + reader.take(6) + reader.b2()
    none = tpm2.ALG["null"]

    def algorithm(extra):
        value = reader.number(2)
        return value if value == none else (value, reader.take(extra))

    detail = []
    if kind in (tpm2.ALG["rsa"], tpm2.ALG["ecc"]):
        detail.append(algorithm(4))
        scheme = reader.number(2)
        detail.append(scheme if scheme == none else (scheme, reader.take(4 if scheme == tpm2.ALG["ecdaa"] else 2)))
        detail.append(reader.take(6 if kind == tpm2.ALG["rsa"] else 2))
        detail.append(algorithm(2) if kind == tpm2.ALG["ecc"] else None)
    elif kind == tpm2.ALG["keyedhash"]:
        scheme = reader.number(2)
        detail.append(scheme if scheme == none else (scheme, reader.take(4 if scheme == tpm2.ALG["xor"] else 2)))
    else:
        detail.append(algorithm(4))
    sizes = []
    while reader.at < len(public):
        sizes.append(len(reader.b2()))
    return head, detail, sizes


def attest(data):
    """magic, type, extraData, and the sizes of the rest: clocks and Names differ."""
    reader = tpm2.Reader(data)
    head = reader.take(6)
    signer, extra = reader.b2(), reader.b2()
    return head, len(signer), extra, len(reader.rest())


def signature(data):
    """Algorithms and, but for an elliptic curve's, whose numbers have no leading zeros, the size."""
    algorithm = int.from_bytes(data[:2], "big")
    curve = algorithm in (tpm2.ALG["ecdsa"], tpm2.ALG["ecdaa"], tpm2.ALG["ecschnorr"])
    return data[:4], None if curve else len(data)


def take_apart(layout, data):
    """The comparable content of response parameters: a list."""
    reader, found, i = tpm2.Reader(data), [], 0
    while i < len(layout):
        one = layout[i]
        if one == "-":
            i += 1
            reader.take(int(layout[i]))
        elif one.isdigit():
            found.append(reader.take(int(one)))
        elif one == "b":
            found.append(reader.b2())
        elif one == "s":
            found.append(len(reader.b2()))
        elif one in "pa":
            content = reader.b2()
            found.append((skip_unique if one == "p" else attest)(content) if content else None)
        elif one == "g":
            found.append(signature(reader.rest()))
        elif one == "*":
            found.append(reader.rest())
        elif one == "~":
            found.append(len(reader.rest()))
        i += 1
    found.append(len(reader.rest()))
    return found


def capability(response, step, replica):
    """GetCapability's answer with handles as entities and without the properties that may differ."""
    reader = tpm2.Reader(response.params)
    more, kind = reader.number(1), reader.number(4)
    if kind == 1:
        handles = [reader.number(4) for _ in range(reader.number(4))]
        if step.numbered:
            return [kind, {h >> 24 for h in handles} <= {0x02, 0x03, 0x80}]
        volatile = [h for h in handles if h >> 24 in (0x02, 0x03, 0x80)]
        if len(volatile) != len(handles) or not volatile:
            return [more, kind, handles]
        return [more, kind, len(handles), sorted({h >> 24 for h in handles})]
    if kind == 6:
        pairs = [(reader.number(4), reader.number(4)) for _ in range(reader.number(4))]
        known = MANAGED_PROPERTIES if step.lenient else ()
        return [more, kind] + [pair if pair[0] not in known else pair[0] for pair in pairs]
    return [more, kind, reader.rest()]


def content(response, step, replica):
    """What of a response is compared: (what it is, value) pairs."""
    yield "response code", hex(response.rc)
    yield "tag", hex(response.tag)
    if response.rc != 0:
        yield "size", response.size
        return
    yield "handle", response.handle if response.handle is None or not step.lenient else response.handle >> 24
    name = tpm2.NAMES.get(response.code)
    try:
        if step.same is False or step.change_bytes and any(use.session for use in step.uses):
            # Damage of a nonce where there is no HMAC: the parameters are encrypted with another key than is known here.
            yield "parameters' size", len(response.params)
        elif step.same is True:
            yield "parameters", response.params
        elif name == "GetCommandAuditDigest" and step.lenient:
            # The digest has the commands of other clients, and those that move contexts.
            yield "signature", signature(response.params[2 + int.from_bytes(response.params[:2], "big"):])
        elif name == "GetCapability":
            yield "capability", capability(response, step, replica)
        elif name in LAYOUTS:
            yield "parameters", take_apart(LAYOUTS[name], response.params)
        else:
            yield "parameters", response.params
    except ValueError as error:
        yield "parameters", str(error) + ": " + response.params.hex()
    yield "sessions", response.proofs


def difference(step, reference, reference_replica, other, replica):
    """None, or (what differs, a text)."""
    step.lenient = not getattr(replica.endpoint, "raw", True)
    # A list that begins in the middle, on a node that numbers handles its own way.
    step.numbered = step.lenient and step.code == tpm2.CC["GetCapability"] and reference_replica.last[-7:-4] not in (
        bytes(3), b"\xff\xff\xff") and reference_replica.last[-8] in (0x02, 0x03, 0x80)
    for (what, expected), (_, got) in zip(content(reference, step, reference_replica), content(other, step, replica)):
        if expected != got:
            return what, f"{what}: {reference_replica.name} {show(expected)}, {replica.name} {show(got)}"
    return None


def show(value):
    return value.hex() if isinstance(value, bytes) else repr(value)


EXCLUSIVE = 0x121
NOT_EXCLUSIVE = "another client's command came between: no audit session is exclusive then"
ROOM = "the resource manager has room where three slots are taken"


def to_be_tested(response):
    """The algorithms that a TPM2_IncrementalSelfTest says are still to be tested."""
    reader = tpm2.Reader(response.params)
    return {reader.number(2) for _ in range(reader.number(4))}


def without_exclusive(response):
    return [(size, attributes & ~tpm2.AUDIT_EXCLUSIVE, proof, right) for size, attributes, proof, right in response.proofs]


BAD_TAG = bytes.fromhex("00c40000000a0000001e")


def is_meant(what, step, reference, other, replica):
    """The reason of a difference that is meant, or None. Those of properties are in MANAGED_PROPERTIES."""
    if replica.last[:2] not in (b"\x80\1", b"\x80\2") and reference.rc in (0x84, 0x1E) and other.data == BAD_TAG:
        return "a bad tag is answered as Part 3, 5.2 has it; libtpms answers 0x84, or 0x1e with another tag"
    if step.lenient and what == "capability" and step.uses:
        return "an answer to an audited TPM2_GetCapability cannot be changed: it shows what is in the TPM, whoever's it is"
    if step.lenient and what == "parameters" and reference.code == tpm2.CC["IncrementalSelfTest"] and (
            to_be_tested(other) < to_be_tested(reference)):
        return "what moving contexts, or another client's commands, made use of has been tested already"
    disturbed = getattr(replica.endpoint, "neighbour", None) or getattr(replica.endpoint, "realigned", False)
    if disturbed and (other.rc == EXCLUSIVE or
                      what == "sessions" and without_exclusive(reference) == without_exclusive(other)):
        return NOT_EXCLUSIVE
    if step.lenient and reference.rc in (OBJECT_MEMORY, SESSION_MEMORY) and other.rc != reference.rc:
        return ROOM
    return None
