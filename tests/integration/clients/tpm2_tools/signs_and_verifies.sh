# SPDX-License-Identifier: Apache-2.0
# Key hierarchies as tpm2-tools use them: a program for each step, contexts in files between them.
. /clients/prelude.sh

echo "a message" >message
for kind in rsa2048:rsassa:null ecc256:ecdsa:null; do
  tpm2_createprimary -Q -C o -G "${kind%%:*}" -c primary.ctx
  tpm2_create -Q -C primary.ctx -G "$kind" -p secret -u key.pub -r key.priv
  tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -n key.name -c key.ctx
  tpm2_sign -Q -c key.ctx -p secret -g sha256 -o signature message
  tpm2_verifysignature -Q -c key.ctx -g sha256 -m message -s signature
  # OpenSSL, which has no TPM, agrees.
  tpm2_readpublic -Q -c key.ctx -f pem -o key.pem
  tpm2_sign -Q -c key.ctx -p secret -g sha256 -f plain -o plain message
  openssl dgst -sha256 -verify key.pem -signature plain message
  echo "another message" >other
  refused "signature" tpm2_verifysignature -c key.ctx -g sha256 -m other -s signature
  refused "auth" tpm2_sign -c key.ctx -p wrong -g sha256 -o other.signature message
done

# A key under a key under a primary key.
tpm2_createprimary -Q -C o -c primary.ctx
tpm2_create -Q -C primary.ctx -a "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth" \
  -G rsa2048:null:aes128cfb -u parent.pub -r parent.priv -c parent.ctx
tpm2_create -Q -C parent.ctx -G hmac -u hmac.pub -r hmac.priv -c hmac.ctx
tpm2_hmac -c hmac.ctx --hex message >first
tpm2_load -Q -C parent.ctx -u hmac.pub -r hmac.priv -c again.ctx
tpm2_hmac -c again.ctx --hex message >second
cmp first second

# Encryption.
tpm2_create -Q -C primary.ctx -G rsa2048 -u rsa.pub -r rsa.priv -c rsa.ctx
tpm2_rsaencrypt -Q -c rsa.ctx -s oaep -o cipher message
tpm2_rsadecrypt -Q -c rsa.ctx -s oaep -o plain cipher
cmp message plain
tpm2_create -Q -C primary.ctx -G aes128cfb -u aes.pub -r aes.priv -c aes.ctx
dd if=/dev/urandom of=large bs=1000 count=5 status=none
tpm2_getrandom -o iv 16
tpm2_encryptdecrypt -Q -c aes.ctx -t iv -o cipher large
tpm2_encryptdecrypt -Q -c aes.ctx -t iv -d -o plain cipher
cmp large plain
tpm2_create -Q -C primary.ctx -G ecc256:ecdh -u ecdh.pub -r ecdh.priv -c ecdh.ctx
tpm2_ecdhkeygen -Q -u ephemeral.pub -o z.generated -c ecdh.ctx
tpm2_ecdhzgen -Q -u ephemeral.pub -o z.recovered -c ecdh.ctx
cmp z.generated z.recovered

# Another auth for a key; a key from outside.
tpm2_changeauth -Q -C parent.ctx -c hmac.ctx -r hmac2.priv changed
tpm2_load -Q -C parent.ctx -u hmac.pub -r hmac2.priv -c changed.ctx
tpm2_hmac -c changed.ctx -p changed --hex message >third
cmp first third
openssl ecparam -name prime256v1 -genkey -noout -out outside.pem
tpm2_import -Q -C primary.ctx -G ecc -i outside.pem -u outside.pub -r outside.priv
tpm2_load -Q -C primary.ctx -u outside.pub -r outside.priv -c outside.ctx
tpm2_sign -Q -c outside.ctx -g sha256 -f plain -o plain message
openssl ec -in outside.pem -pubout -out outside.public.pem 2>/dev/null
openssl dgst -sha256 -verify outside.public.pem -signature plain message

# Credentials: who has the key gets the secret.
tpm2_createek -Q -c ek.ctx -G ecc -u ek.pub
tpm2_createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub -n ak.name
echo "0123456789" >credential
tpm2_makecredential -Q -u ek.pub -s credential -n "$(od -An -v -tx1 ak.name | tr -d ' \n')" \
  -o blob
tpm2_startauthsession -Q --policy-session -S session.ctx
tpm2_policysecret -Q -S session.ctx -c e
tpm2_activatecredential -Q -c ak.ctx -C ek.ctx -i blob -o activated -P "session:session.ctx"
tpm2_flushcontext session.ctx
cmp credential activated
