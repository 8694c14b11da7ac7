# SPDX-License-Identifier: Apache-2.0
# NV: plain, counter, bits, extend, locks, policies on an index.
. /clients/prelude.sh

tpm2_nvdefine -Q -C o -s 1024 -a "ownerread|ownerwrite|authread|authwrite|read_stclear|write_stclear" -p indexauth 0x1500001
dd if=/dev/urandom of=written bs=1024 count=1 status=none
tpm2_nvwrite -Q -C o -i written 0x1500001
tpm2_nvread -Q -C 0x1500001 -P indexauth -s 1024 -o read 0x1500001
cmp written read
refused "auth" tpm2_nvread -C 0x1500001 -P wrong -s 8 0x1500001
said "0x1500001" tpm2_nvreadpublic 0x1500001
said "0x1500001" tpm2_getcap handles-nv-index
tpm2_nvwritelock -C o 0x1500001
refused "0x148" tpm2_nvwrite -C o -i written 0x1500001
tpm2_nvreadlock -Q -C o 0x1500001
refused "0x148" tpm2_nvread -C o -s 8 0x1500001
tpm2_nvundefine -Q -C o 0x1500001
tpm2_getcap handles-nv-index | { ! grep -q 0x1500001; }

tpm2_nvdefine -Q -C o -a "nt=counter|ownerread|ownerwrite" 0x1500002
tpm2_nvincrement -Q -C o 0x1500002
tpm2_nvread -C o -s 8 0x1500002 >first
tpm2_nvincrement -Q -C o 0x1500002
tpm2_nvread -C o -s 8 0x1500002 >second
if cmp -s first second; then exit 1; fi

tpm2_nvdefine -Q -C o -a "nt=bits|ownerread|ownerwrite" 0x1500003
tpm2_nvsetbits -Q -C o -i 0x5 0x1500003
tpm2_nvsetbits -Q -C o -i 0xa0 0x1500003
[ "$(tpm2_nvread -C o -s 8 0x1500003 | od -An -tx1)" = " 00 00 00 00 00 00 00 a5" ]

tpm2_nvdefine -Q -C o -a "nt=extend|ownerread|ownerwrite" 0x1500004
echo -n extended >data
tpm2_nvextend -Q -C o -i data 0x1500004
tpm2_nvread -Q -C o -s 32 -o extended 0x1500004
{ head -c 32 /dev/zero; cat data; } | openssl dgst -sha256 -binary >expected
cmp expected extended

# An index that only who knows a PCR may read.
tpm2_startauthsession -Q -S trial.ctx
tpm2_policypcr -Q -S trial.ctx -l sha256:16 -L policy
tpm2_flushcontext trial.ctx
tpm2_nvdefine -Q -C o -s 32 -L policy -a "policyread|ownerwrite" 0x1500005
head -c 32 written >short
tpm2_nvwrite -Q -C o -i short 0x1500005
tpm2_nvread -Q -C 0x1500005 -P pcr:sha256:16 -s 32 -o read 0x1500005
cmp short read
tpm2_pcrextend 16:sha256=$(printf '11%.0s' $(seq 32))
refused "policy" tpm2_nvread -C 0x1500005 -P pcr:sha256:16 -s 32 0x1500005
tpm2_pcrreset 16
tpm2_nvread -Q -C 0x1500005 -P pcr:sha256:16 -s 32 -o read 0x1500005
cmp short read

# A certificate, as it stands, of what an index contains.
tpm2_createek -Q -c ek.ctx -G ecc -u ek.pub
tpm2_createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub
tpm2_nvcertify -Q -C ak.ctx -c o -g sha256 -f plain -s ecdsa -o signature --attestation attestation --size 8 0x1500002
tpm2_readpublic -Q -c ak.ctx -f pem -o ak.pem
openssl dgst -sha256 -verify ak.pem -signature signature attestation
