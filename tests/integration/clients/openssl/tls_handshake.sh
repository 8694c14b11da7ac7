# SPDX-License-Identifier: Apache-2.0
# The tpm2 provider of OpenSSL: a TLS server whose key is in the TPM, and a client that checks it, without a TPM.
. /clients/prelude.sh

# With the TPM's provider named first, OpenSSL would take hashes from it too: tls_handshake_all_in_tpm.sh does so.
if [ -n "${ALL_IN_TPM-}" ]; then
  tpm=(-provider tpm2 -provider default -propquery '?provider=tpm2')
  only=("${tpm[@]:0:2}")
else
  tpm=(-provider default -provider tpm2 -propquery '?provider=tpm2,tpm2.digest!=yes')
  only=("${tpm[@]:2:2}")
fi

# handshake NAME SIGNATURE-TYPE: TLS 1.3 on loopback with NAME.key and NAME.crt.
handshake() {
  openssl s_server "${tpm[@]}" -accept 127.0.0.1:4433 -naccept 1 -www -tls1_3 -key "$1.key" -cert "$1.crt" >"$1.server" 2>&1 &
  local server=$! tries=0
  until grep -q ACCEPT "$1.server"; do
    kill -0 $server || { cat "$1.server"; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 500 ] || { echo "the server does not listen"; exit 1; }
    sleep 0.05
  done
  printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -ign_eof -connect 127.0.0.1:4433 -CAfile "$1.crt" -verify_return_error -verify_hostname localhost -tls1_3 \
    >"$1.client" 2>&1 || { cat "$1.client" "$1.server"; exit 1; }
  wait $server
  grep -q "HTTP/1.0 200 ok" "$1.client"
  grep -q "New, TLSv1.3" "$1.client"
  grep -q "Verify return code: 0 (ok)" "$1.client"
  grep -q "Peer signature type: $2" "$1.client" || { cat "$1.client"; exit 1; }
  echo "$1: TLS 1.3, $(grep "Peer signature type" "$1.client")"
}

said "TPM 2.0 Provider" openssl list -providers "${tpm[@]:0:4}"
openssl genpkey "${only[@]}" -algorithm RSA -pkeyopt bits:2048 -out rsa.key
openssl genpkey "${only[@]}" -algorithm EC -pkeyopt group:P-256 -out ec.key
for kind in rsa ec; do
  # The private key cannot be read: the file is a blob that only this TPM loads.
  grep -q "BEGIN TSS2 PRIVATE KEY" $kind.key
  openssl req "${tpm[@]}" -x509 -new -key $kind.key -subj "/CN=localhost" -addext "subjectAltName=DNS:localhost" -days 2 -out $kind.crt
  openssl verify -CAfile $kind.crt $kind.crt
done
handshake rsa RSA-PSS
handshake ec ECDSA

# Signatures and decryption by the same keys, checked by OpenSSL alone.
echo message >message
for kind in rsa ec; do
  openssl pkey "${tpm[@]}" -in $kind.key -pubout -out $kind.pub
  openssl dgst "${tpm[@]}" -sha256 -sign $kind.key -out signature message
  openssl dgst -sha256 -verify $kind.pub -signature signature message
done
openssl pkeyutl -encrypt -pubin -inkey rsa.pub -in message -out cipher
openssl pkeyutl "${tpm[@]}" -decrypt -inkey rsa.key -in cipher | cmp - message
openssl rand "${tpm[@]:0:4}" -hex 16

# Keys that tpm2-tools made persistent.
tpm2_createprimary -Q -C o -G ecc:ecdsa-sha256:null -a "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign" -c key.ctx
tpm2_evictcontrol -Q -C o -c key.ctx 0x81000020
openssl pkey "${tpm[@]}" -in handle:0x81000020 -pubout -out handle.pub
openssl dgst "${tpm[@]}" -sha256 -sign handle:0x81000020 -out signature message
openssl dgst -sha256 -verify handle.pub -signature signature message
