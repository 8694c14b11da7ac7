# SPDX-License-Identifier: Apache-2.0
# clevis: a secret bound to the TPM, and to the TPM's PCRs.
. /clients/prelude.sh

echo -n "the secret" >secret
clevis encrypt tpm2 '{}' <secret >plain.jwe
clevis decrypt <plain.jwe | cmp - secret
for key in rsa ecc; do
  clevis encrypt tpm2 "{\"key\":\"$key\",\"pcr_bank\":\"sha256\",\"pcr_ids\":\"16,23\"}" <secret >pcr.jwe
  clevis decrypt <pcr.jwe | cmp - secret
  tpm2_pcrextend 16:sha256="$(openssl dgst -sha256 -r secret | cut -c1-64)"
  refused "" clevis decrypt <pcr.jwe
  tpm2_pcrreset 16
  clevis decrypt <pcr.jwe | cmp - secret
done
clevis encrypt sss '{"t":2,"pins":{"tpm2":[{"pcr_bank":"sha256","pcr_ids":"7"},{"key":"rsa"}]}}' <secret >shares.jwe
clevis decrypt <shares.jwe | cmp - secret
