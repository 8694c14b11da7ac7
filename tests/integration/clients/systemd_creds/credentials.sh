# SPDX-License-Identifier: Apache-2.0
# systemd-creds: credentials bound to the TPM and to the measured launch of this container (PCR 17). It takes /dev/tpmrm0
# without a look at sysfs, and so says itself that TPM support is partial: no firmware, no driver.
. /clients/prelude.sh

refused "partial" systemd-creds has-tpm2
grep -q "^+system" refused.out
echo -n "the secret" >secret
systemd-creds encrypt --with-key=tpm2 --name=any secret any.cred
systemd-creds decrypt --name=any any.cred - | cmp - secret
systemd-creds encrypt --with-key=tpm2 --tpm2-pcrs=17 --name=launch secret launch.cred
systemd-creds decrypt --name=launch launch.cred - | cmp - secret
refused "name" systemd-creds decrypt --name=other launch.cred -
systemd-creds encrypt --with-key=tpm2 --tpm2-pcrs=16+17 --name=state secret state.cred
systemd-creds decrypt --name=state state.cred - | cmp - secret
tpm2_pcrextend 16:sha256="$(openssl dgst -sha256 -r secret | cut -c1-64)"
refused "" systemd-creds decrypt --name=state state.cred -
tpm2_pcrreset 16
systemd-creds decrypt --name=state state.cred - | cmp - secret
systemd-creds decrypt --name=launch launch.cred - | cmp - secret
