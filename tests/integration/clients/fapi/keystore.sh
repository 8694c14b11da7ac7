# SPDX-License-Identifier: Apache-2.0
# FAPI of tpm2-tss, by tpm2-tools' tss2_ commands, with the profiles as Debian installs them.
. /clients/prelude.sh

# What differs from Debian's configuration: the instances have no EK certificate, so FAPI must not look for one.
config=/etc/tpm2-tss/fapi-config.json
sed -i 's/"system_pcrs" *: *\[\],/"system_pcrs": [],\n "ek_cert_less": "yes",/' $config
# There is an SRK at 0x81000001 already, made from the TCG's template (with noDA). This FAPI takes an SRK that is there only
# if it is as its profile would make it (without noDA). So: the owner evicts it, or names another handle for FAPI's own.
tpm2_evictcontrol -Q -C o -c 0x81000001
sed -i 's/0x81000001/0x81000002/' /etc/tpm2-tss/fapi-profiles/P_RSA2048SHA256.json

for profile in P_ECCP256SHA256 P_RSA2048SHA256; do
  sed -i "s/\"profile_name\": *\"[^\"]*\"/\"profile_name\": \"$profile\"/" $config
  rm -rf /var/lib/tpm2-tss ~/.local /run/tpm2-tss
  mkdir -p /run/tpm2-tss/eventlog
  tss2_provision
  tss2_list --searchPath= --pathList=paths --force
  grep -q "$profile" paths
  key=HS/SRK/key
  tss2_createkey --path=$key --type="noDa, sign" --authValue=""
  echo -n "a message" >message
  openssl dgst -sha256 -binary message >digest
  tss2_sign --keyPath=$key --digest=digest --publicKey=public.pem --signature=signature --force
  tss2_verifysignature --keyPath=$key --digest=digest --signature=signature
  padding=()
  if [ $profile = P_RSA2048SHA256 ]; then padding=(-sigopt rsa_padding_mode:pss); fi
  said "OK" openssl dgst -sha256 -verify public.pem "${padding[@]}" -signature signature message
  echo -n "another" | openssl dgst -sha256 -binary >other
  refused "signature" tss2_verifysignature --keyPath=$key --digest=other --signature=signature

  tss2_createnv --path=/nv/Owner/index --type=noDa --size=16 --authValue=""
  echo -n "0123456789abcdef" >data
  tss2_nvwrite --nvPath=/nv/Owner/index --data=data
  tss2_nvread --nvPath=/nv/Owner/index --data=read --force
  cmp data read
  tss2_createnv --path=/nv/Owner/counter --type="noDa, counter" --size=0 --authValue=""
  tss2_nvincrement --nvPath=/nv/Owner/counter

  tss2_createseal --path=HS/SRK/sealed --type=noDa --data=data --authValue=""
  tss2_unseal --path=HS/SRK/sealed --data=unsealed --force
  cmp data unsealed

  # A seal to the present PCR values.
  cat >pcr.json <<'END'
{"description": "PCR 16 as it is", "policy": [{"type": "POLICYPCR", "currentPCRs": [16]}]}
END
  tss2_import --path=/policy/pcr --importData=pcr.json
  tss2_createseal --path=HS/SRK/pcr --type=noDa --policyPath=/policy/pcr --data=data --authValue=""
  tss2_unseal --path=HS/SRK/pcr --data=unsealed --force
  cmp data unsealed
  tss2_pcrextend --pcr=16 --data=message
  refused "0x" tss2_unseal --path=HS/SRK/pcr --data=unsealed --force

  tss2_getrandom --numBytes=20 --data=random --force
  tss2_pcrread --pcrIndex=16 --pcrValue=value --force
  tss2_createkey --path=HS/SRK/ak --type="noDa, sign, restricted" --authValue=""
  head -c 20 random >nonce
  tss2_quote --keyPath=HS/SRK/ak --pcrList="16" --qualifyingData=nonce --signature=quote.signature --quoteInfo=quote.info --pcrLog=log --force
  tss2_exportkey --pathOfKeyToDuplicate=HS/SRK/ak --exportedData=ak.json --force
  tss2_import --path=/ext/ak$profile --importData=ak.json
  tss2_verifyquote --publicKeyPath=/ext/ak$profile --qualifyingData=nonce --quoteInfo=quote.info --signature=quote.signature --pcrLog=log
  tss2_delete --path=/nv/Owner/index
  tss2_delete --path=/nv/Owner/counter
  tss2_delete --path=/
  tpm2_pcrreset 16
done
