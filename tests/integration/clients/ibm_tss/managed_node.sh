# SPDX-License-Identifier: Apache-2.0
# The same utilities at the managed node: what a program leaves behind is flushed when it ends, contexts in files are not.
. /clients/prelude.sh
export TPM_INTERFACE_TYPE=dev TPM_DEVICE=/dev/tpmrm0 TPM_DATA_DIR=$work

tssgetrandom -by 16 >random
said "80000000" tsscreateprimary -hi o -ecc nistp256
tssgetcapability -cap 1 -pr 80000000 | { ! grep -q 80000000; }
tsspcrextend -ha 16 -halg sha256 -if random
tsspcrread -ha 16 -halg sha256 -of pcr >/dev/null
{ head -c 32 /dev/zero; head -c 32 random; } | openssl dgst -sha256 -binary | cmp - pcr
tssnvdefinespace -ha 01500001 -hi o -sz 32 -pwdn index
dd if=/dev/urandom of=written bs=32 count=1 status=none
tssnvwrite -ha 01500001 -pwdn index -if written
tssnvread -ha 01500001 -pwdn index -sz 32 -of read >out
cmp written read
