# SPDX-License-Identifier: Apache-2.0
# HMAC and audit sessions in files, persistent keys, quotes, hashes, PCRs, the clock.
. /clients/prelude.sh

# An HMAC session that encrypts parameters, used by several programs.
tpm2_createprimary -Q -C o -G ecc -c primary.ctx
tpm2_startauthsession -Q --hmac-session -c primary.ctx -S session.ctx
tpm2_sessionconfig -Q --enable-decrypt --enable-encrypt session.ctx
for number in 1 2 3; do
  tpm2_create -Q -C primary.ctx -P session:session.ctx -G ecc -p secret -u key.pub -r key.priv
done
tpm2_load -Q -C primary.ctx -P session:session.ctx -u key.pub -r key.priv -c key.ctx
tpm2_getrandom -S session.ctx --hex 16 >random
[ "$(wc -c <random)" -eq 32 ]
tpm2_flushcontext session.ctx
refused "0x" tpm2_load -C primary.ctx -P session:session.ctx -u key.pub -r key.priv -c key.ctx

# An audit session: its digest covers the commands of several programs.
tpm2_startauthsession -Q --audit-session -S audit.ctx
tpm2_getrandom -Q -o random -S audit.ctx 16
tpm2_getrandom -Q -o random -S audit.ctx 16
tpm2_createek -Q -c ek.ctx -G ecc -u ek.pub
tpm2_createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub -f pem
tpm2_sessionconfig audit.ctx >/dev/null
tpm2_readpublic -Q -c ak.ctx -f pem -o ak.pem
tpm2_getsessionauditdigest -Q -P "" -c ak.ctx -g sha256 -s audit.signature -m audit.message -f plain -S audit.ctx
openssl dgst -sha256 -verify ak.pem -signature audit.signature audit.message
tpm2_flushcontext audit.ctx

# Persistent keys, across programs with no file at all.
tpm2_evictcontrol -Q -C o -c key.ctx 0x81000010
said 0x81000010 tpm2_getcap handles-persistent
echo message >message
tpm2_sign -Q -c 0x81000010 -p secret -g sha256 -o signature message
tpm2_verifysignature -Q -c 0x81000010 -g sha256 -m message -s signature
tpm2_evictcontrol -Q -C o -c 0x81000010
tpm2_getcap handles-persistent | { ! grep -q 0x81000010; }
refused "handle" tpm2_sign -c 0x81000010 -p secret -g sha256 -o signature message

# Quotes.
tpm2_pcrevent -Q 16 message
tpm2_quote -Q -c ak.ctx -l sha256:0,16,17,23 -q 0011aabb -m quote -s signature -o pcrs -g sha256
tpm2_checkquote -Q -u ak.pem -m quote -s signature -f pcrs -g sha256 -q 0011aabb
refused "" tpm2_checkquote -u ak.pem -m quote -s signature -f pcrs -g sha256 -q 0011aacc
tpm2_pcrread -Q -o pcr16 sha256:16
{ head -c 32 /dev/zero; openssl dgst -sha256 -binary message; } | openssl dgst -sha256 -binary | cmp - pcr16
refused "locality" tpm2_pcrextend 17:sha256="$(openssl dgst -sha256 -r message | cut -c1-64)"
said "type: 8018" tpm2_print -t TPMS_ATTEST quote

# Certification of a key by a key, and of its creation.
tpm2_create -Q -C primary.ctx -G ecc -u other.pub -r other.priv --creation-data cdata -d cdigest -t cticket
tpm2_load -Q -C primary.ctx -u other.pub -r other.priv -c other.ctx
tpm2_certify -Q -c other.ctx -C ak.ctx -g sha256 -o attestation -s signature -f plain
openssl dgst -sha256 -verify ak.pem -signature signature attestation
tpm2_certifycreation -Q -C ak.ctx -c other.ctx -d cdigest -t cticket -g sha256 -o signature --attestation attestation -f plain
openssl dgst -sha256 -verify ak.pem -signature signature attestation

# A hash of more than one buffer: a sequence.
dd if=/dev/urandom of=large bs=1000 count=100 status=none
tpm2_hash -g sha256 --hex large >digest
[ "$(cat digest)" = "$(openssl dgst -sha256 -r large | cut -c1-64)" ]
tpm2_create -Q -C primary.ctx -G hmac -c hmac.ctx -u hmac.pub -r hmac.priv
[ "$(tpm2_hmac -c hmac.ctx --hex large)" = "$(tpm2_hmac -c hmac.ctx --hex large)" ]

# Time.
tpm2_readclock >clock
grep -q "reset_count" clock
tpm2_gettime -Q -c ak.ctx -g sha256 -o signature --attestation attestation -f plain
openssl dgst -sha256 -verify ak.pem -signature signature attestation
tpm2_dictionarylockout -s -n 6 -t 3 -l 4
said "0x6" tpm2_getcap properties-variable

# All that the TPM says of itself.
for capability in $(tpm2_getcap -l | sed -n 's/^- //p'); do
  tpm2_getcap "$capability" >"cap.$capability"
  echo "$capability: $(wc -l <"cap.$capability") lines"
done
tpm2_testparms rsa2048 ecc256 aes128cfb
tpm2_selftest
tpm2_selftest --fulltest
tpm2_gettestresult >/dev/null
tpm2_getcap handles-transient >left
if [ -s left ]; then cat left; exit 1; fi

# No EK certificate yet: the tool says so, and does not crash.
refused "" tpm2_getekcertificate -o certificate
