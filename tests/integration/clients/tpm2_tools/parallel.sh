# SPDX-License-Identifier: Apache-2.0
# Twenty at once, each with keys and a policy session of its own, and nothing in common but the TPM.
. /clients/prelude.sh

worker() {
  mkdir "worker$1"
  cd "worker$1"
  echo "message of $1" >message
  tpm2_startauthsession -Q --policy-session -S session.ctx
  tpm2_createprimary -Q -C o -G ecc -c primary.ctx
  tpm2_policypcr -Q -S session.ctx -l sha256:16 -L policy
  tpm2_create -Q -C primary.ctx -G ecc -u key.pub -r key.priv
  tpm2_create -Q -C primary.ctx -i message -L policy -u sealed.pub -r sealed.priv
  tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -c key.ctx
  tpm2_load -Q -C primary.ctx -u sealed.pub -r sealed.priv -c sealed.ctx
  tpm2_sign -Q -c key.ctx -g sha256 -o signature message
  tpm2_verifysignature -Q -c key.ctx -g sha256 -m message -s signature
  tpm2_unseal -c sealed.ctx -p session:session.ctx -o unsealed
  cmp message unsealed
  tpm2_flushcontext session.ctx
}

workers=()
for number in $(seq 20); do
  worker "$number" >"log$number" 2>&1 &
  workers+=($!)
done
failed=0
for number in $(seq 20); do
  wait "${workers[number - 1]}" || { failed=1; echo "worker $number:"; cat "log$number"; }
done
[ $failed -eq 0 ]
for handles in transient loaded-session saved-session; do tpm2_getcap handles-$handles; done >left
if [ -s left ]; then cat left; exit 1; fi
