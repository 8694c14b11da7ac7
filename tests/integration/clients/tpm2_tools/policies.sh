# SPDX-License-Identifier: Apache-2.0
# Policies and sealing. Each policy session is carried in a file from program to program.
. /clients/prelude.sh

tpm2_createprimary -Q -C o -G ecc -c primary.ctx
echo -n "the secret" >secret

begin() {  # trial or policy: the session in session.ctx
  if [ "$1" = policy ]; then
    tpm2_startauthsession -Q --policy-session -S session.ctx
  else
    tpm2_startauthsession -Q -S session.ctx
  fi
}
end() {
  tpm2_flushcontext session.ctx
}
seal() {  # POLICY NAME
  tpm2_create -Q -C primary.ctx -i secret -L "$1" -u "$2.pub" -r "$2.priv" -c "$2.ctx"
}

# PolicyPCR, and that a changed PCR closes the seal.
begin trial
tpm2_policypcr -Q -S session.ctx -l sha256:16,23 -L pcr.policy
end
seal pcr.policy pcr
begin policy
tpm2_policypcr -Q -S session.ctx -l sha256:16,23
tpm2_unseal -c pcr.ctx -p session:session.ctx | cmp - secret
end
tpm2_unseal -c pcr.ctx -p pcr:sha256:16,23 | cmp - secret
tpm2_pcrextend 23:sha256="$(openssl dgst -sha256 -r secret | cut -c1-64)"
refused "policy" tpm2_unseal -c pcr.ctx -p pcr:sha256:16,23

# PolicySecret with a hierarchy's auth.
tpm2_changeauth -c o ownerauth
begin trial
tpm2_policysecret -Q -S session.ctx -c o -L owner.policy ownerauth
end
seal owner.policy owner
begin policy
refused "auth" tpm2_policysecret -S session.ctx -c o wrong
tpm2_policysecret -Q -S session.ctx -c o ownerauth
tpm2_unseal -c owner.ctx -p session:session.ctx | cmp - secret
end
tpm2_changeauth -c o -p ownerauth

# PolicyOR of a PCR's two values, one of which it has.
begin trial
tpm2_policypcr -Q -S session.ctx -l sha256:16,23 -L now.policy
end
begin trial
tpm2_policyor -Q -S session.ctx -L or.policy sha256:pcr.policy,now.policy
end
seal or.policy or
begin policy
tpm2_policypcr -Q -S session.ctx -l sha256:16,23
tpm2_policyor -Q -S session.ctx sha256:pcr.policy,now.policy
tpm2_unseal -c or.ctx -p session:session.ctx | cmp - secret
end

# PolicyAuthorize: a policy that a key may change later.
openssl genrsa -out signer.pem 2048 2>/dev/null
openssl rsa -in signer.pem -pubout -out signer.pub 2>/dev/null
tpm2_loadexternal -Q -G rsa -C o -u signer.pub -c signer.ctx -n signer.name
begin trial
tpm2_policyauthorize -Q -S session.ctx -L authorized.policy -n signer.name
end
seal authorized.policy authorized
openssl dgst -sha256 -sign signer.pem -out now.signature now.policy
tpm2_verifysignature -Q -c signer.ctx -g sha256 -m now.policy -s now.signature -t ticket -f rsassa
begin policy
tpm2_policypcr -Q -S session.ctx -l sha256:16,23
tpm2_policyauthorize -Q -S session.ctx -i now.policy -n signer.name -t ticket
tpm2_unseal -c authorized.ctx -p session:session.ctx | cmp - secret
end

# PolicySigned.
begin trial
tpm2_policysigned -Q -S session.ctx -c signer.ctx -L signed.policy -x --raw-data to_sign
openssl dgst -sha256 -sign signer.pem -out signature to_sign
tpm2_policysigned -Q -S session.ctx -g sha256 -s signature -f rsassa -c signer.ctx -x -L signed.policy
end
seal signed.policy signed
begin policy
tpm2_policysigned -Q -S session.ctx -c signer.ctx -x --raw-data to_sign
openssl dgst -sha256 -sign signer.pem -out signature to_sign
tpm2_policysigned -Q -S session.ctx -g sha256 -s signature -f rsassa -c signer.ctx -x
tpm2_unseal -c signed.ctx -p session:session.ctx | cmp - secret
end

# PolicyAuthValue and PolicyCommandCode together.
begin trial
tpm2_policyauthvalue -Q -S session.ctx
tpm2_policycommandcode -Q -S session.ctx -L auth.policy TPM2_CC_Unseal
end
tpm2_create -Q -C primary.ctx -i secret -p value -L auth.policy -u auth.pub -r auth.priv -c auth.ctx
begin policy
tpm2_policyauthvalue -Q -S session.ctx
tpm2_policycommandcode -Q -S session.ctx TPM2_CC_Unseal
tpm2_unseal -c auth.ctx -p session:session.ctx+value | cmp - secret
end
begin policy
tpm2_policyauthvalue -Q -S session.ctx
tpm2_policycommandcode -Q -S session.ctx TPM2_CC_Unseal
refused "auth" tpm2_unseal -c auth.ctx -p session:session.ctx+wrong
end

# PolicyNV: as long as an index has a value.
tpm2_nvdefine -Q -C o -s 8 -a "ownerread|ownerwrite|authread|authwrite" 0x1500010
printf '\0\0\0\0\0\0\0\1' >one
tpm2_nvwrite -Q -C o -i one 0x1500010
begin trial
tpm2_policynv -Q -S session.ctx -i one -C o -L nv.policy 0x1500010 eq
end
seal nv.policy nv
begin policy
tpm2_policynv -Q -S session.ctx -i one -C o 0x1500010 eq
tpm2_unseal -c nv.ctx -p session:session.ctx | cmp - secret
end
printf '\0\0\0\0\0\0\0\2' >two
tpm2_nvwrite -Q -C o -i two 0x1500010
begin policy
refused "0x126" tpm2_policynv -S session.ctx -i one -C o 0x1500010 eq
end

# Restart of a session that is saved.
begin policy
tpm2_policypcr -Q -S session.ctx -l sha256:16,23
tpm2_policyrestart -S session.ctx
refused "policy" tpm2_unseal -c or.ctx -p session:session.ctx
end

# Duplication: a key leaves one parent for another.
begin trial
tpm2_policycommandcode -Q -S session.ctx -L duplicate.policy TPM2_CC_Duplicate
end
tpm2_createprimary -Q -C e -G ecc -c new_parent.ctx
tpm2_readpublic -Q -c new_parent.ctx -o new_parent.pub
tpm2_create -Q -C primary.ctx -G ecc -p secret -L duplicate.policy -a "sensitivedataorigin|userwithauth|sign|decrypt" \
  -u moving.pub -r moving.priv -c moving.ctx
begin policy
tpm2_policycommandcode -Q -S session.ctx -L duplicate.policy TPM2_CC_Duplicate
tpm2_loadexternal -Q -C n -u new_parent.pub -c target.ctx
tpm2_duplicate -Q -C target.ctx -c moving.ctx -G null -p session:session.ctx -r duplicate -s seed
end
tpm2_import -Q -C new_parent.ctx -u moving.pub -r moved.priv -i duplicate -s seed -L duplicate.policy
tpm2_load -Q -C new_parent.ctx -u moving.pub -r moved.priv -c moved.ctx
tpm2_sign -Q -c moved.ctx -p secret -g sha256 -o signature secret
tpm2_verifysignature -Q -c moving.ctx -g sha256 -m secret -s signature

# Nothing is left of all these sessions.
tpm2_getcap handles-saved-session >left
tpm2_getcap handles-loaded-session >>left
if [ -s left ]; then cat left; exit 1; fi
