# SPDX-License-Identifier: Apache-2.0
"""python3-tpm2-pytss: ESAPI with no TCTI named. One program holds the TPM open, and more keys than the TPM has slots."""

import hashlib

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_RH, TPM2_SE, TPM2_ST, TPMA_NV, TPMA_OBJECT, TPMA_SESSION
from tpm2_pytss.types import (TPM2B_DIGEST, TPM2B_NV_PUBLIC, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE,
                              TPM2B_SENSITIVE_DATA, TPML_DIGEST_VALUES, TPMS_NV_PUBLIC, TPMS_SENSITIVE_CREATE,
                              TPMT_HA, TPMT_SIG_SCHEME, TPMT_SYM_DEF, TPMT_TK_HASHCHECK, TPMU_HA)

MANY = 10
FIXED = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT
SIGNING = FIXED | TPMA_OBJECT.SENSITIVEDATAORIGIN | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.SIGN_ENCRYPT
MESSAGE = b"a message"
SECRET = b"the secret"


def refused(what, function, *arguments, **options):
    """The TPM refuses, with a response code that says so."""
    try:
        function(*arguments, **options)
    except TSS2_Exception as error:
        assert what in str(error), error
    else:
        raise AssertionError("was not refused: " + what)


def sign_with(ectx, key):
    ticket = TPMT_TK_HASHCHECK(tag=TPM2_ST.HASHCHECK, hierarchy=TPM2_RH.NULL)
    digest = TPM2B_DIGEST(hashlib.sha256(MESSAGE).digest())
    signature = ectx.sign(key, digest, TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL), ticket)
    ectx.verify_signature(key, digest, signature)
    signature.verify_signature(ectx.read_public(key)[0], MESSAGE)


def many_keys(ectx, parent):
    template = TPM2B_PUBLIC.parse("ecc:ecdsa-sha256", objectAttributes=SIGNING)
    keys = []
    for _ in range(MANY):
        private, public = ectx.create(parent, None, template)[:2]
        keys.append(ectx.load(parent, private, public))
    for key in keys + keys[::-1]:
        sign_with(ectx, key)
    contexts = [ectx.context_save(key) for key in keys]
    for key in keys:
        ectx.flush_context(key)
    again = [ectx.context_load(context) for context in contexts]
    for key in again:
        sign_with(ectx, key)
        ectx.flush_context(key)


def nv(ectx):
    public = TPMS_NV_PUBLIC(nvIndex=0x1500020, nameAlg=TPM2_ALG.SHA256, dataSize=32,
                            attributes=TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE | TPMA_NV.AUTHREAD)
    index = ectx.nv_define_space("auth", TPM2B_NV_PUBLIC(nvPublic=public))
    ectx.nv_write(index, b"0123456789abcdef" * 2, 0, auth_handle=ESYS_TR.OWNER)
    assert bytes(ectx.nv_read(index, 16, 16, auth_handle=ESYS_TR.OWNER)) == b"0123456789abcdef"
    ectx.nv_undefine_space(index)


def start_session(ectx, kind):
    session = ectx.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, kind, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL),
                                      TPM2_ALG.SHA256)
    ectx.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
    return session


def pcr_policy(ectx, parent):
    trial = start_session(ectx, TPM2_SE.TRIAL)
    ectx.policy_pcr(trial, b"", "sha256:16")
    digest = ectx.policy_get_digest(trial)
    ectx.flush_context(trial)

    secret = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=TPM2B_SENSITIVE_DATA(SECRET)))
    template = TPM2B_PUBLIC.parse("keyedhash", objectAttributes=FIXED, authPolicy=digest)
    private, public = ectx.create(parent, secret, template)[:2]
    sealed = ectx.load(parent, private, public)

    # More sessions than the TPM holds loaded: each has its own policy.
    sessions = [start_session(ectx, TPM2_SE.POLICY) for _ in range(MANY)]
    for session in sessions:
        ectx.policy_pcr(session, b"", "sha256:16")
    for session in sessions[1:]:
        assert bytes(ectx.unseal(sealed, session1=session)) == SECRET
    extended = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=b"\1" * 32))
    ectx.pcr_extend(ESYS_TR.PCR16, TPML_DIGEST_VALUES([extended]))
    later = start_session(ectx, TPM2_SE.POLICY)
    ectx.policy_pcr(later, b"", "sha256:16")
    refused("policy", ectx.unseal, sealed, session1=later)
    ectx.flush_context(later)
    ectx.pcr_reset(ESYS_TR.PCR16)
    assert bytes(ectx.unseal(sealed, session1=sessions[0])) == SECRET
    for session in sessions:
        ectx.flush_context(session)
    ectx.flush_context(sealed)


def main():
    # A closed one leaves nothing behind, and another can follow.
    for _ in range(2):
        with ESAPI() as ectx:
            parent = ectx.create_primary(None, "ecc")[0]
            assert len(bytes(ectx.get_random(16))) == 16
            many_keys(ectx, parent)
            nv(ectx)
            pcr_policy(ectx, parent)
    print("complete")


if __name__ == "__main__":
    main()
