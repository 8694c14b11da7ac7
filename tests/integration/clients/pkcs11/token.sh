# SPDX-License-Identifier: Apache-2.0
# tpm2-pkcs11: a token in the TPM, used by OpenSC's pkcs11-tool.
. /clients/prelude.sh
export TPM2_PKCS11_STORE=$work/store
mkdir store

tpm2_ptool init >init
tpm2_ptool addtoken --pid=1 --sopin=sopin --userpin=userpin --label=token
tpm2_ptool addkey --algorithm=rsa2048 --label=token --userpin=userpin --key-label=rsa2048 --id=01 >rsa.txt
tpm2_ptool addkey --algorithm=ecc256 --label=token --userpin=userpin --key-label=ecc256 --id=02 >ecc.txt
said token tpm2_ptool listtokens --pid=1
said ecc256 tpm2_ptool listobjects --label=token

tool=(pkcs11-tool --module /usr/lib/x86_64-linux-gnu/libtpm2_pkcs11.so.1 --token-label token)
said "token label *: token" "${tool[@]}" --list-slots
"${tool[@]}" --login --pin userpin --list-objects >objects
grep -q "Private Key Object; RSA" objects
grep -q "Private Key Object; EC" objects
refused "PIN" "${tool[@]}" --login --pin wrong --list-objects

# pkcs11-tool chooses a key by its id only. The token's ids are text: 01 is 3031.
rsa=3031 ecc=3032
echo "a message" >message
openssl dgst -sha256 -binary message >digest
"${tool[@]}" --login --pin userpin --sign --mechanism SHA256-RSA-PKCS --id $rsa -i message -o signature
"${tool[@]}" --read-object --type pubkey --id $rsa -o rsa.der
openssl pkey -pubin -inform DER -in rsa.der -out rsa.pem
openssl dgst -sha256 -verify rsa.pem -signature signature message
"${tool[@]}" --login --pin userpin --verify --mechanism SHA256-RSA-PKCS --id $rsa -i message --signature-file signature

"${tool[@]}" --login --pin userpin --sign --mechanism ECDSA --signature-format openssl --id $ecc -i digest -o signature
"${tool[@]}" --read-object --type pubkey --id $ecc -o ec.der
openssl pkey -pubin -inform DER -in ec.der -out ec.pem
openssl dgst -sha256 -verify ec.pem -signature signature message

"${tool[@]}" --login --pin userpin --keypairgen --key-type EC:secp256r1 --label generated --id 33 --usage-sign >generated
"${tool[@]}" --login --pin userpin --sign --mechanism ECDSA --signature-format openssl --id 33 -i digest -o signature
"${tool[@]}" --read-object --type pubkey --id 33 -o generated.der
openssl pkey -pubin -inform DER -in generated.der -out generated.pem
openssl dgst -sha256 -verify generated.pem -signature signature message
"${tool[@]}" --generate-random 16 -o random
[ "$(wc -c <random)" -eq 16 ]
"${tool[@]}" --login --pin userpin --change-pin --new-pin another
"${tool[@]}" --login --pin another --list-objects >/dev/null
