# SPDX-License-Identifier: Apache-2.0
# IBM's utilities at the raw node: a program for each command, and the TPM keeps between them what they made. The utilities'
# own default is a simulator's socket; told to use a device, they take /dev/tpm0.
. /clients/prelude.sh
# Sessions go from program to program, so their state is in files as it is.
export TPM_INTERFACE_TYPE=dev TPM_DATA_DIR=$work TPM_ENCRYPT_SESSIONS=0
handles() { tssgetcapability -cap 1 -pr "$1" | sed -n 's/^\t//p' | xargs; }
# made COMMAND...: the handle that it prints. Handles are the TPM's own: others may have some by the managed node.
made() {
  "$@" >made.out
  sed -n 's/^\(Handle\|hashsequencestart: handle\) //p' made.out | grep '^[08]'
}

echo "a message" >message
tssgetrandom -by 16 >random
said "propert" tssgetcapability -cap 6 -pc 40
[ "$(handles 80000000)" = "" ]

# Keys: they are there for the next program.
parent=$(made tsscreateprimary -hi o -ecc nistp256 -pwdk parent)
[ "$(handles 80000000)" = "$parent" ]
tsscreate -hp $parent -pwdp parent -si -ecc nistp256 -kt f -kt p -pwdk secret -opu key.pub -opr key.priv
key=$(made tssload -hp $parent -pwdp parent -ipu key.pub -ipr key.priv)
tsssign -hk $key -halg sha256 -ecc -pwdk secret -if message -os signature
tssverifysignature -hk $key -halg sha256 -ecc -if message -is signature
tssreadpublic -ho $key -opem key.pem >public
refused "TPM_RC" tsssign -hk $key -halg sha256 -ecc -pwdk wrong -if message -os other
tsscreate -hp $parent -pwdp parent -si -rsa -kt f -kt p -opu rsa.pub -opr rsa.priv
rsa=$(made tssload -hp $parent -pwdp parent -ipu rsa.pub -ipr rsa.priv)
tsssign -hk $rsa -halg sha256 -if message -os signature
tssverifysignature -hk $rsa -halg sha256 -if message -is signature
# The raw node is the TPM itself: three objects fit, a fourth does not.
refused "TPM_RC_OBJECT_MEMORY" tssload -hp $parent -pwdp parent -ipu rsa.pub -ipr rsa.priv

# Contexts.
tsscontextsave -ha $rsa -of rsa.context
tssflushcontext -ha $rsa
rsa=$(made tsscontextload -if rsa.context)
tsssign -hk $rsa -halg sha256 -if message -os signature
tssflushcontext -ha $rsa

# NV.
tssnvdefinespace -ha 01500001 -hi o -sz 32 -pwdn index
dd if=/dev/urandom of=written bs=32 count=1 status=none
tssnvwrite -ha 01500001 -pwdn index -if written
tssnvread -ha 01500001 -pwdn index -sz 32 -of read >out
cmp written read
refused "TPM_RC" tssnvread -ha 01500001 -pwdn wrong -sz 32
tssnvreadpublic -ha 01500001 >public
tssnvundefinespace -ha 01500001 -hi o

# Policies, in sessions that stay loaded between programs.
session=$(made tssstartauthsession -se t)
tsspolicypcr -ha $session -bm 100
tsspolicygetdigest -ha $session -of policy
tssflushcontext -ha $session
tsscreate -hp $parent -pwdp parent -bl -if message -kt f -kt p -uwa -pol policy -opu sealed.pub -opr sealed.priv
sealed=$(made tssload -hp $parent -pwdp parent -ipu sealed.pub -ipr sealed.priv)
session=$(made tssstartauthsession -se p)
tsspolicypcr -ha $session -bm 100
tssunseal -ha $sealed -of unsealed -se0 $session 1
cmp message unsealed
said "$session" tssgetcapability -cap 1 -pr 02000000
tsspolicyrestart -ha $session
refused "TPM_RC_POLICY_FAIL" tssunseal -ha $sealed -of unsealed -se0 $session 1
tsspolicyrestart -ha $session
tsspolicypcr -ha $session -bm 100
tsspcrextend -ha 8 -halg sha256 -if message
refused "TPM_RC" tssunseal -ha $sealed -of unsealed -se0 $session 1
tssflushcontext -ha $session
tssflushcontext -ha $sealed

# A salted HMAC session with encrypted parameters, over several programs.
session=$(made tssstartauthsession -se h -hs $parent)
tsscreate -hp $parent -pwdp parent -si -ecc nistp256 -kt f -kt p -pwdk secret -opu key.pub -opr key.priv -se0 $session 61
tsscreate -hp $parent -pwdp parent -si -ecc nistp256 -kt f -kt p -pwdk secret -opu key.pub -opr key.priv -se0 $session 61
tssflushcontext -ha $session

# Quotes.
tssquote -hp 16 -hk $key -pwdk secret -halg sha256 -salg ecc -os signature -oa quote
tssverifysignature -hk $key -halg sha256 -ecc -if quote -is signature

# Persistent objects and sequences.
tssevictcontrol -hi o -ho $key -hp 81000010
tsssign -hk 81000010 -halg sha256 -ecc -pwdk secret -if message -os signature
tssverifysignature -hk $key -halg sha256 -ecc -if message -is signature
tssevictcontrol -hi o -ho 81000010 -hp 81000010
sequence=$(made tsshashsequencestart -halg sha256)
tsssequenceupdate -hs $sequence -if message
tsssequencecomplete -hs $sequence -if message -of digest
cat message message | openssl dgst -sha256 -binary | cmp - digest

tssflushcontext -ha $key
tssflushcontext -ha $parent
[ "$(handles 80000000)" = "" ]
