# SPDX-License-Identifier: Apache-2.0
# The raw node and the managed node, used at the same time. The raw one has one opener at a time.
. /clients/prelude.sh

exec 3<>/dev/tpm0
refused "busy" tpm2_getrandom -T device:/dev/tpm0 8
tpm2_getrandom -Q -o random 8
exec 3>&-
tpm2_getrandom -T device:/dev/tpm0 -Q -o random 8

for _ in 1 2 3; do bash /clients/ibm_tss/raw_node.sh; done >raw.log 2>&1 &
raw=$!
rounds=0
while kill -0 $raw 2>/dev/null; do
  tpm2_createprimary -Q -C o -G ecc -c primary.ctx
  tpm2_create -Q -C primary.ctx -G ecc -u key.pub -r key.priv
  tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -c key.ctx
  tpm2_sign -Q -c key.ctx -g sha256 -o signature random
  tpm2_verifysignature -Q -c key.ctx -g sha256 -m random -s signature
  /programs/esys_client many >/dev/null
  rounds=$((rounds + 1))
done
wait $raw || { cat raw.log; exit 1; }
echo "$rounds rounds at the managed node"
[ $rounds -gt 0 ]
