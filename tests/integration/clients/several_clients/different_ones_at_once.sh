# SPDX-License-Identifier: Apache-2.0
# Different clients at once on one TPM, each as in its own test.
. /clients/prelude.sh

# Each tries a wrong password once or twice; together that would be a dictionary attack.
tpm2_dictionarylockout -s -n 1000 -t 1 -l 1
clients=("bash /clients/openssl/tls_handshake.sh" "bash /clients/pkcs11/token.sh"
  "bash /clients/tpm2_tools/signs_and_verifies.sh" "/usr/bin/python3 /clients/pytss/esapi.py"
  "/programs/esys_client many" "/programs/esys_client openers" "/programs/esys_client asynchronous")
processes=()
for number in "${!clients[@]}"; do
  ${clients[number]} >"log$number" 2>&1 &
  processes+=($!)
done
failed=0
for number in "${!clients[@]}"; do
  if wait "${processes[number]}"; then
    echo "done: ${clients[number]}"
  else
    failed=1
    echo "FAILED: ${clients[number]}"
    cat "log$number"
  fi
done
[ $failed -eq 0 ]
for handles in transient loaded-session; do tpm2_getcap handles-$handles; done >left
if [ -s left ]; then cat left; exit 1; fi
